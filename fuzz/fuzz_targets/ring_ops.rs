//! Operations on a ring against a naive queue, deaths at any store included.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringway_fuzz::ops::run(data));
