//! Both kinds of end on a ring of arbitrary bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringway_fuzz::hostile::consumer_bytes(data));
