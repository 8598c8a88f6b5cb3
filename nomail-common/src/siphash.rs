//! SipHash-2-4 over whole words: a keyed hash whose results cannot be predicted without the
//! key. The kernel uses it for its own SYN cookies.

/// The secret of a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(pub u64, pub u64);

struct SipState(u64, u64, u64, u64);

impl SipState {
    #[inline(always)]
    const fn round(self) -> Self {
        let Self(mut v0, mut v1, mut v2, mut v3) = self;
        v0 = v0.wrapping_add(v1);
        v1 = v1.rotate_left(13) ^ v0;
        v0 = v0.rotate_left(32);
        v2 = v2.wrapping_add(v3);
        v3 = v3.rotate_left(16) ^ v2;
        v0 = v0.wrapping_add(v3);
        v3 = v3.rotate_left(21) ^ v0;
        v2 = v2.wrapping_add(v1);
        v1 = v1.rotate_left(17) ^ v2;
        v2 = v2.rotate_left(32);
        Self(v0, v1, v2, v3)
    }

    #[inline(always)]
    const fn absorb(mut self, word: u64) -> Self {
        self.3 ^= word;
        let mut state = self.round().round();
        state.0 ^= word;
        state
    }
}

/// The hash of `words`, each as its eight bytes in little-endian order.
#[inline(always)]
pub const fn siphash<const N: usize>(key: Key, words: [u64; N]) -> u64 {
    hash(key, words, N as u64 * 8, 0)
}

/// The hash of `words` and the four bytes of `tail`, which need no block of their own.
#[inline(always)]
pub const fn siphash_tail<const N: usize>(key: Key, words: [u64; N], tail: u32) -> u64 {
    hash(key, words, N as u64 * 8 + 4, tail)
}

/// The hash of `length` bytes.
#[inline(always)]
const fn hash<const N: usize>(key: Key, words: [u64; N], length: u64, tail: u32) -> u64 {
    let mut state = SipState(
        key.0 ^ 0x736f_6d65_7073_6575,
        key.1 ^ 0x646f_7261_6e64_6f6d,
        key.0 ^ 0x6c79_6765_6e65_7261,
        key.1 ^ 0x7465_6462_7974_6573,
    );
    let mut index = 0;
    while index < N {
        state = state.absorb(words[index]);
        index += 1;
    }
    // The last block is the rest, and the length above it.
    state = state.absorb(length << 56 | tail as u64);
    state.2 ^= 0xff;
    let SipState(v0, v1, v2, v3) = state.round().round().round().round();
    v0 ^ v1 ^ v2 ^ v3
}

#[cfg(test)]
mod tests;
