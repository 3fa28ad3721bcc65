//! Frames of any content to a server of remote calls, and to a caller.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringway_fuzz::rpc::rpc_frames(data));
