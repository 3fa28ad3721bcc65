//! Looking at an archive that somebody else wrote.
//!
//! Everything that reads `rkyv` archives comes here. What always holds: bytes are validated, to a
//! bounded depth, before a reference into them exists.

use std::num::NonZeroUsize;

use rkyv::Portable;
use rkyv::api::access_with_context;
use rkyv::api::high::HighValidator;
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor;
use rkyv::validation::Validator;
use rkyv::validation::archive::ArchiveValidator;
use rkyv::validation::shared::SharedValidator;

use super::DecodeError;

/// How many pointers of an archive may lead from one value into the next. Checking recurses with
/// them, so a peer that may nest as deep as its message is long overflows the receiver's stack.
const MAX_ARCHIVE_DEPTH: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// Checks that the bytes are an archive, and looks at it.
pub(crate) fn access<T>(bytes: &[u8]) -> Result<&T, DecodeError>
where
    T: Portable + for<'a> CheckBytes<HighValidator<'a, rancor::Failure>>,
{
    let archive = ArchiveValidator::with_max_depth(bytes, Some(MAX_ARCHIVE_DEPTH));
    let mut validator = Validator::new(archive, SharedValidator::new());
    access_with_context::<_, _, rancor::Failure>(bytes, &mut validator)
        .map_err(|_| DecodeError::Invalid)
}
