//! What a message is: a fingerprint of its type's fields, and how its values become bytes.
//!
//! Typed channels ask it for both; users derive [`Schema`] for their own types and name a codec,
//! [`Pod`] or [`Archived`]. What always holds: fingerprints are constants, computed when the program
//! is compiled, never 0; a value is made only from bytes that were checked.
//!
//! | file | what it holds |
//! |---|---|
//! | `fingerprint` | the hash that all fingerprints are made with |
//! | `schema`, `known` | the trait, and the types of `std` that have it |
//! | `codec`, `archive` | values as bytes and back |

mod archive;
mod codec;
mod fingerprint;
mod known;
mod schema;

pub(crate) use archive::access;
pub use codec::{Archived, Codec, Decode, DecodeError, DecodeOwned, Encode, EncodeError, Pod};
pub use fingerprint::Fingerprint;
pub use schema::Schema;
