//! Whether a name still means the file that a segment lies in.
//!
//! Every handle of a named segment has a [`Binding`]; `channel::stranger` and the watches of stores ask
//! it from time to time.
//!
//! Invariants: asking takes no lock and changes nothing; a name that cannot be looked at counts as
//! current.

use std::path::{Path, PathBuf, absolute};

use crate::os::names::FileId;

/// A name, and the file that it meant when the segment was created or opened.
#[derive(Debug, Clone)]
pub(crate) struct Binding {
    path: PathBuf,
    id: FileId,
}

impl Binding {
    /// `id` is the file's that `path` means now. The caller maps the file as long as this lives, so that
    /// its number is given to no other file.
    pub(crate) fn new(path: &Path, id: FileId) -> Self {
        // The process may change its directory later.
        Self { path: absolute(path).unwrap_or_else(|_| path.into()), id }
    }

    /// Whether the name still means the file: false where it was removed, or given to another file.
    pub(crate) fn is_current(&self) -> bool {
        FileId::at(&self.path).map_or(true, |found| found == Some(self.id))
    }
}
