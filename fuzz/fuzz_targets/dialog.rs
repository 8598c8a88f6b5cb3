//! libFuzzer's way into [`nomail_fuzz::dialog`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nomail_fuzz::dialog(data));
