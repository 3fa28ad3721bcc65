//! A producer whose peer publishes arbitrary heads.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringway_fuzz::hostile::producer_head(data));
