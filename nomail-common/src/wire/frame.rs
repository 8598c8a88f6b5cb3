//! The seam between parsing and where the bytes are.

/// A received frame. The kernel half implements it over the packet, this crate
/// over a slice.
pub trait Frame {
    /// The `N` bytes at `offset`, or nothing when the frame ends before them.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;
}

impl Frame for [u8] {
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..)?.first_chunk().copied()
    }
}
