//! What tests of stores share.

use ringway::error::{NameError, SegmentError};
use ringway::store::{OpenError, StoreGeometry, StoreHeader};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// The measures of the store in a file that holds both parts.
pub fn geometry(file: &File) -> StoreGeometry {
    let mut header = [0; ringway::layout::segment::HEADER_BYTES as usize];
    file.read_exact_at(&mut header, 0).unwrap();
    StoreHeader::from_header(header, file.metadata().unwrap().len()).unwrap().geometry
}

/// Offset of the lock in that file.
pub fn lock_of(file: &File) -> u64 {
    geometry(file).private() + ringway::layout::store::private::LOCK
}

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
