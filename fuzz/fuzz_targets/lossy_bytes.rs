//! Both kinds of end on a lossy ring of arbitrary bytes, while a peer changes words.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringway_fuzz::lossy_bytes::run(data));
