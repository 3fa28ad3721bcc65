//! Messages put together from pieces with arbitrary words.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringway_fuzz::hostile::fragments(data));
