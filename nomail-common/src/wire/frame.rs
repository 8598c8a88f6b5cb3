//! Access to the bytes of a frame.

/// A received frame. The XDP program implements it over packet memory, this crate over a
/// slice.
pub trait Frame {
    /// The `N` bytes at `offset`; none when the frame ends before.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// The first `N` bytes, where they are; none when the frame ends before. For headers at
    /// fixed offsets: one check, and only what is used is read.
    fn start<const N: usize>(&self) -> Option<&[u8; N]>;
}

impl Frame for [u8] {
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..)?.first_chunk().copied()
    }

    fn start<const N: usize>(&self) -> Option<&[u8; N]> {
        self.first_chunk()
    }
}

/// The `M` bytes at `at` of a header that has them.
#[inline(always)]
pub(crate) const fn part<const N: usize, const M: usize>(header: &[u8; N], at: usize) -> &[u8; M] {
    let (_, tail) = header.split_at(at);
    match tail.first_chunk() {
        Some(part) => part,
        None => panic!("a header has all parts that are read"),
    }
}

/// The number of 16 bits at `at` of a header.
#[inline(always)]
pub(crate) const fn half<const N: usize>(header: &[u8; N], at: usize) -> u16 {
    u16::from_be_bytes(*part(header, at))
}

/// The number of 32 bits at `at` of a header.
#[inline(always)]
pub(crate) const fn word<const N: usize>(header: &[u8; N], at: usize) -> u32 {
    u32::from_be_bytes(*part(header, at))
}

/// The number of 64 bits at `at` of a header.
#[inline(always)]
pub(crate) const fn double<const N: usize>(header: &[u8; N], at: usize) -> u64 {
    u64::from_be_bytes(*part(header, at))
}
