//! What tests of stores share.

use ringway::error::{NameError, SegmentError};
use ringway::store::OpenError;

pub fn segment_error<T: std::fmt::Debug>(result: Result<T, OpenError>) -> SegmentError {
    match result {
        Err(OpenError::Segment(error)) => error,
        other => panic!("{other:?}"),
    }
}

pub fn name_error<T: std::fmt::Debug>(result: Result<T, OpenError>) -> NameError {
    match segment_error(result) {
        SegmentError::Name(error) => error,
        other => panic!("{other:?}"),
    }
}
