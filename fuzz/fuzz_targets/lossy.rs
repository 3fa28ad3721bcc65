//! Operations on a lossy ring against a naive list, deaths at any store included.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringway_fuzz::lossy::run(data));
