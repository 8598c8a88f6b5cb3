//! BPF atomics on map memory.
//!
//! `AtomicU64` has no read-modify-write on this target, so these are the compiler's intrinsics.
//! Always SeqCst: LLVM 22 miscompiles Relaxed ones whose result is used (it returns the
//! operand).

use core::intrinsics::{AtomicOrdering::SeqCst, atomic_cxchg, atomic_xadd, atomic_xchg};

/// A word in map memory that other CPUs change.
#[derive(Clone, Copy)]
pub(crate) struct Word(*mut u64);

impl Word {
    /// # Safety
    /// `word` must be aligned and point into a map value that lives as long as
    /// the program runs.
    #[inline(always)]
    pub(crate) unsafe fn new(word: *mut u64) -> Self {
        Self(word)
    }

    #[inline(always)]
    pub(crate) fn load(self) -> u64 {
        // SAFETY: valid by `new`. An aligned 64-bit load is one instruction on
        // every 64-bit machine, and volatile keeps it one.
        unsafe { self.0.read_volatile() }
    }

    /// Swaps the word if it still is `old`; true when it was.
    #[inline(always)]
    pub(crate) fn replace(self, old: u64, new: u64) -> bool {
        // SAFETY: valid by `new`.
        unsafe { atomic_cxchg::<u64, { SeqCst }, { SeqCst }>(self.0, old, new).1 }
    }

    /// A plain store, which a [`Word::store`] to another word then publishes, at a fraction of
    /// its cost.
    #[inline(always)]
    pub(crate) fn prepare(self, new: u64) {
        // SAFETY: valid by `new`. An aligned 64-bit store is one instruction, and
        // volatile keeps it one, in its place.
        unsafe { self.0.write_volatile(new) };
    }

    /// A store that is a full barrier.
    #[inline(always)]
    pub(crate) fn store(self, new: u64) {
        // SAFETY: valid by `new`.
        unsafe { atomic_xchg::<u64, { SeqCst }>(self.0, new) };
    }

    #[inline(always)]
    pub(crate) fn add(self, more: u64) {
        // SAFETY: valid by `new`.
        unsafe { atomic_xadd::<u64, u64, { SeqCst }>(self.0, more) };
    }
}
