//! Access to the bytes of a frame.

/// A received frame. The XDP program implements it over packet memory, this crate over a
/// slice.
pub trait Frame {
    /// The `N` bytes at `offset`; none when the frame ends before.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;
}

impl Frame for [u8] {
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..)?.first_chunk().copied()
    }
}
