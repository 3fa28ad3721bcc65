//! Operations on a slot ring, arbitrary bytes in one, heads, and words that change meanwhile.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringway_fuzz::slots::run(data));
