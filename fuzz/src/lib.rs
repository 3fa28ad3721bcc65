//! What the fuzz targets run: the interpreters that the tests share.
//!
//! Inputs are operation lists in fixed-width bytes, of which any are valid, and not `arbitrary`'s:
//! so the tests can write the seeds with the same code that decodes them, and decoding allocates
//! nothing. There is no `unsafe` in what runs here, so the targets are built without a sanitizer:
//!
//! ```text
//! cargo +nightly fuzz run --sanitizer none ring_ops /tmp/found fuzz/corpus/ring_ops -- -runs=1000000
//! ```
//!
//! New inputs go to the first directory; the second, the seeds, is only read.
#![allow(dead_code, reason = "each target uses its part")]

#[path = "../../tests/rig/header.rs"]
pub mod header;
#[path = "../../tests/rig/hostile.rs"]
pub mod hostile;
#[path = "../../tests/rig/lossy.rs"]
pub mod lossy;
#[path = "../../tests/rig/lossy_bytes.rs"]
pub mod lossy_bytes;
#[path = "../../tests/rig/op.rs"]
pub mod op;
#[path = "../../tests/rig/ops.rs"]
pub mod ops;
#[path = "../../tests/rig/rpc.rs"]
pub mod rpc;
#[path = "../../tests/rig/slots.rs"]
pub mod slots;
#[path = "../../tests/rig/store.rs"]
pub mod store;
#[path = "../../tests/rig/store_ops.rs"]
pub mod store_ops;
