//! Lists named segments, and removes those that nobody needs.
//!
//! `channel::directory` and `store::directory` decide for their kind what may be removed.
//!
//! Invariants:
//! - Nothing is removed that a living process uses.
//! - A name is removed under the gate, while it still means the file that was looked at.
//! - At most one file is open at a time, so listing does not use descriptors up.
//! - What could not be looked at is reported, with the reason.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::address::{Access, Address, PREFIX, SHARED_DIRECTORY, is_draft, name_of_draft};
use super::claim::Claim;
use super::gate::Gate;
use super::named::{Found, refused};
use super::open::patience;
use crate::error::{NameError, SegmentError};
use crate::os::clock::monotonic_ns;
use crate::os::{names, os};

/// A file that could not be looked at, or not be removed.
#[derive(Debug)]
pub struct Skipped {
    /// Name of the file, without its directory.
    pub file_name: String,
    /// Why.
    pub reason: SegmentError,
}

/// What was found, and what could not be looked at. Iterating gives what was found.
#[derive(Debug)]
pub struct Listing<T> {
    /// What was found, sorted by name.
    pub found: Vec<T>,
    /// What may be there as well: its file could not be looked at.
    pub skipped: Vec<Skipped>,
}

impl<T> IntoIterator for Listing<T> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.found.into_iter()
    }
}

/// What was removed, and what could not be looked at or removed.
#[derive(Debug, Default)]
pub struct Cleared {
    /// Names of the files that were removed, without their directory.
    pub removed: Vec<String>,
    /// Files that stayed because of an error. What is in use or holds data stays too, and is not
    /// reported.
    pub skipped: Vec<Skipped>,
}

impl Cleared {
    fn add(&mut self, file_name: String, removed: Result<bool, SegmentError>) {
        match removed {
            Ok(true) => self.removed.push(file_name),
            // Or somebody else was faster.
            Ok(false) | Err(SegmentError::Name(NameError::NotFound { .. })) => {}
            Err(reason) => self.skipped.push(Skipped { file_name, reason }),
        }
    }
}

/// What a look at a file has shown.
pub(crate) enum Look<T> {
    /// One of those that are listed.
    Listed(T),
    /// Something else.
    Other,
    /// The name means another file meanwhile, or none.
    Gone,
}

/// The named segments in shared memory, sorted by name, as `look` sees each.
pub(crate) fn list<T>(
    look: impl Fn(&str, &Found) -> Result<Look<T>, SegmentError>,
) -> Result<Listing<T>, SegmentError> {
    let mut listing = Listing { found: Vec::new(), skipped: Vec::new() };
    let mut file_names = file_names(Path::new(SHARED_DIRECTORY))?;
    file_names.sort();
    for file_name in file_names {
        let Some(name) = file_name.strip_prefix(PREFIX) else { continue };
        match look_until(name, &look) {
            Ok(Some(found)) => listing.found.push(found),
            Ok(None) | Err(SegmentError::Name(NameError::NotFound { .. })) => {}
            Err(reason) => listing.skipped.push(Skipped { file_name, reason }),
        }
    }
    Ok(listing)
}

/// Looks at what has the name, again where it has changed meanwhile.
fn look_until<T>(
    name: &str,
    look: impl Fn(&str, &Found) -> Result<Look<T>, SegmentError>,
) -> Result<Option<T>, SegmentError> {
    let (address, deadline) = (Address::from(name), patience());
    loop {
        match look(name, &Found::open_to_inspect(&address)?)? {
            Look::Listed(found) => return Ok(Some(found)),
            Look::Other => return Ok(None),
            Look::Gone if monotonic_ns() < deadline.as_ns() => {}
            Look::Gone => return Err(NameError::Busy { address: address.to_string() }.into()),
        }
    }
}

/// Removes the drafts of dead creators, and every segment whose name is `chosen`, that nobody alive
/// uses and that `may_go`.
pub(crate) fn clear(
    mut chosen: impl FnMut(&str) -> bool,
    may_go: impl Fn(&Found) -> Result<bool, SegmentError>,
) -> Result<Cleared, SegmentError> {
    let directory = Path::new(SHARED_DIRECTORY);
    let mut cleared = Cleared::default();
    for file_name in file_names(directory)? {
        let draft_of = name_of_draft(&file_name);
        let Some(name) = draft_of.or_else(|| file_name.strip_prefix(PREFIX)) else { continue };
        if !chosen(name) {
            continue;
        }
        let removed = if draft_of.is_some() {
            remove_draft(&directory.join(&file_name))
        } else {
            let in_use = |_: &Found, _: &Gate<'_>| Ok(None);
            remove_if(&Address::from(name), &may_go, in_use)
        };
        cleared.add(file_name, removed);
    }
    Ok(cleared)
}

/// Removes what creators of file-backed segments have left in a directory that died over it: their
/// drafts, which no living process holds. The segments themselves stay, whatever is in them.
///
/// A creator that is killed leaves its draft, a hidden file beside the file that it was making. The
/// next one to create the same file removes it as well.
///
/// # Errors
/// [`NameError::Denied`] where the directory cannot be read. A draft that cannot be removed is
/// reported in [`Cleared::skipped`].
///
/// # Examples
/// ```
/// # fn main() -> Result<(), ringway::error::SegmentError> {
/// let cleared = ringway::segment::gc_drafts(std::env::temp_dir())?;
/// for skipped in cleared.skipped {
///     eprintln!("{}: {}", skipped.file_name, skipped.reason);
/// }
/// # Ok(())
/// # }
/// ```
pub fn gc_drafts(directory: impl AsRef<Path>) -> Result<Cleared, SegmentError> {
    clear_drafts(directory.as_ref(), is_draft)
}

/// Removes the drafts of dead creators in a directory whose file names are `chosen`.
pub(super) fn clear_drafts(
    directory: &Path,
    chosen: impl Fn(&str) -> bool,
) -> Result<Cleared, SegmentError> {
    let mut cleared = Cleared::default();
    for file_name in file_names(directory)? {
        if chosen(&file_name) {
            let removed = remove_draft(&directory.join(&file_name));
            cleared.add(file_name, removed);
        }
    }
    Ok(cleared)
}

/// Removes what has this name, if nobody alive has it and `may_go`; false where it may not. `in_use`
/// makes the error where somebody has it, or none.
pub(crate) fn remove_if(
    address: &Address,
    may_go: impl Fn(&Found) -> Result<bool, SegmentError>,
    in_use: impl Fn(&Found, &Gate<'_>) -> Result<Option<SegmentError>, SegmentError>,
) -> Result<bool, SegmentError> {
    let deadline = patience();
    // Any mode: it is to go.
    let access = Access { mode: 0o777, owner: None };
    loop {
        let found = Found::open(address, &access)?;
        let Some(gate) = found.gate(deadline)? else { continue };
        if !gate.take_both()? {
            return in_use(&found, &gate)?.map_or(Ok(false), Err);
        }
        let may_go = may_go(&found)?;
        if may_go {
            gate.remove()?;
        }
        return Ok(may_go);
    }
}

/// Removes a draft whose creator has died; false where it lives.
fn remove_draft(path: &Path) -> Result<bool, SegmentError> {
    let failed = |error| refused(&Address::from(path), error);
    let claim = Claim::new(names::open(path, true).map_err(failed)?)?;
    let found = claim.file().metadata().map_err(os("fstat"))?;
    if !found.is_file() {
        return Ok(false);
    }
    // A second name means that it was whole: its creator died, or will remove this name itself. The
    // gate too: the creator may give the file its name meanwhile, and openers must not take this
    // look for a use.
    let dead = found.nlink() > 1 || claim.take_all()?;
    if dead {
        fs::remove_file(path).map_err(failed)?;
    }
    Ok(dead)
}

/// The names of a directory's files.
fn file_names(directory: &Path) -> Result<Vec<String>, SegmentError> {
    let read = || -> io::Result<Vec<String>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(directory)? {
            found.extend(entry?.file_name().into_string());
        }
        Ok(found)
    };
    read().map_err(|source| {
        let directory = directory.display().to_string();
        NameError::Directory { directory, source }.into()
    })
}
