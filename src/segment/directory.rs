//! What has a name in shared memory, and taking names away that nobody needs.
//!
//! `channel::directory` and `store::directory` say of each kind what may go.
//! What always holds: nothing is removed that somebody alive has; a name is taken away under the gate,
//! while it still means the file that was looked at.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::address::{
    Access, Address, PREFIX, SHARED_DIRECTORY, TEMPORARY_PREFIX, TEMPORARY_SEPARATOR,
};
use super::claim::Claim;
use super::named::{Found, Gate};
use super::open::patience;
use crate::error::SegmentError;
use crate::os::{names, os};

/// The names of segments that this process may open, sorted, with what has them.
pub(crate) fn found() -> Result<Vec<(String, Found)>, SegmentError> {
    let mut listed: Vec<(String, Found)> = Vec::new();
    for file_name in file_names()? {
        let Some(name) = file_name.strip_prefix(PREFIX) else { continue };
        let Ok(found) = Found::open_to_inspect(&Address::from(name)) else { continue };
        listed.push((name.into(), found));
    }
    listed.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(listed)
}

/// Removes what creators have left half made that died over it, and every segment whose name is `chosen`,
/// that nobody alive has, and that `may_go`. Returns the names of the files that are gone.
pub(crate) fn clear(
    mut chosen: impl FnMut(&str) -> bool,
    may_go: impl Fn(&Found) -> Result<bool, SegmentError>,
) -> Result<Vec<String>, SegmentError> {
    let mut removed = Vec::new();
    for file_name in file_names()? {
        let half_made = file_name.strip_prefix(TEMPORARY_PREFIX);
        let name = half_made.and_then(|rest| rest.rsplit_once(TEMPORARY_SEPARATOR));
        let name = name.map(|(name, _)| name).or_else(|| file_name.strip_prefix(PREFIX));
        let Some(name) = name.filter(|name| chosen(name)) else { continue };
        let gone = if half_made.is_none() {
            let in_use = |_: &Found, _: &Gate<'_>| Ok(None);
            remove_if(&Address::from(name), &may_go, in_use)
        } else {
            remove_temporary(&Path::new(SHARED_DIRECTORY).join(&file_name))
        };
        if gone.unwrap_or(false) {
            removed.push(file_name);
        }
    }
    Ok(removed)
}

/// Removes what has this name, if nobody alive has it and `may_go`; false where it may not. `in_use` makes the
/// error where somebody has it, or none.
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

/// Removes a half-made segment whose maker has died; false where it lives.
fn remove_temporary(path: &Path) -> Result<bool, SegmentError> {
    let file = names::open(path, true).map_err(os("open"))?;
    let claim = Claim::new(file)?;
    // One that has a name of its own was whole: its maker died, or will take this name away itself.
    let published = || claim.file().metadata().map(|found| found.nlink() > 1);
    let dead = published().map_err(os("fstat"))? || claim.take_both()?;
    if dead {
        fs::remove_file(path).map_err(os("unlink"))?;
    }
    Ok(dead)
}

/// What lies in the directory of shared memory.
fn file_names() -> Result<Vec<String>, SegmentError> {
    let read = || -> io::Result<Vec<String>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(SHARED_DIRECTORY)? {
            found.extend(entry?.file_name().into_string());
        }
        Ok(found)
    };
    read().map_err(os("readdir"))
}
