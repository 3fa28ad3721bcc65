//! Both ends while a peer changes words between any two accesses.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringway_fuzz::hostile::consumer_mutator(data));
