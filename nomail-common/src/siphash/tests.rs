use super::*;

/// From the reference implementation's vectors_sip64: key 00 01 … 0f, input
/// 00 01 02 … of 0, 8 and 16 bytes.
#[test]
fn agrees_with_the_reference() {
    let key = Key(0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908);
    let word = |n: u64| u64::from_le_bytes(std::array::from_fn(|i| (n * 8) as u8 + i as u8));
    assert_eq!(siphash(key, []), 0x726f_db47_dd0e_0e31);
    assert_eq!(siphash(key, [word(0)]), 0x93f5_f579_9a93_2462);
    assert_eq!(siphash(key, [word(0), word(1)]), 0x3f2a_cc7f_57c2_9bdb);
}

#[test]
#[expect(deprecated, reason = "the same hash by another author")]
fn a_tail_agrees_with_the_standard_library() {
    use std::hash::{Hasher as _, SipHasher};
    let key = Key(0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908);
    let mut bytes = SipHasher::new_with_keys(key.0, key.1);
    bytes.write(&0x1122_3344_5566_7788_u64.to_le_bytes());
    bytes.write(&0x99aa_bbcc_u32.to_le_bytes());
    let hash = siphash_tail(key, [0x1122_3344_5566_7788], 0x99aa_bbcc);
    assert_eq!(hash, bytes.finish());
}
