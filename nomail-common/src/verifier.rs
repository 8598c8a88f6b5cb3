//! Helps for the kernel's verifier, and against what the compiler knows too well.
//!
//! The verifier goes through the rest of a program once for each combination of constants that
//! it knows of, and through it once for a number that it does not know.

/// The value, of which the compiler knows nothing any more. Costs one instruction.
#[inline(always)]
#[must_use]
pub fn opaque(value: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    {
        let mut value = value;
        // SAFETY: moves a register to itself. No instruction would leave two lines of debug
        // information at the same place, which the kernel refuses.
        unsafe {
            core::arch::asm!("{0} = {0}", inout(reg) value, options(pure, nomem, nostack));
        }
        value
    }
    #[cfg(not(target_arch = "bpf"))]
    core::hint::black_box(value)
}

/// The `value`, of which the verifier forgets what it is: to it, it is as unknown as
/// `unknown`. Costs three instructions.
#[inline(always)]
#[must_use]
pub fn forget(value: u64, unknown: u64) -> u64 {
    value ^ unknown ^ opaque(unknown)
}
