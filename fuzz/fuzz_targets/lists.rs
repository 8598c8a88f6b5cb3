//! libFuzzer's way into [`nomail_fuzz::lists`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nomail_fuzz::lists(data));
