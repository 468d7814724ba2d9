#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wssgate_fuzz::deflate::check(data));
