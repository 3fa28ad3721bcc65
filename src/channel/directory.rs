//! What named segments there are, and clearing away those that nobody needs.
//!
//! Tools and tests call it, and whoever starts a service anew. What always holds: nothing is removed
//! that somebody alive has, nor, unless it was asked for by name, anything with unread messages.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::open::unread;
use crate::error::{NameError, SegmentError};
use crate::memory::Deadline;
use crate::os::clock::monotonic_ns;
use crate::os::{names, os};
use crate::segment::{
    Access, Address, ChannelGeometry, Claim, Found, PREFIX, SHARED_DIRECTORY, TEMPORARY_PREFIX,
    TEMPORARY_SEPARATOR,
};

/// Who has a side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// Nobody alive.
    Nobody,
    /// Somebody; the process with this number in its own pid namespace, by its own word.
    Process(u32),
}

/// Messages that nobody has read and given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unread {
    /// From the first side.
    pub to_second: u64,
    /// From the second side.
    pub to_first: u64,
}

/// A segment in shared memory.
#[derive(Debug)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Its length in bytes.
    pub len_bytes: u64,
    /// Who has the first side, and the second.
    pub sides: [Holder; 2],
    /// What is unread; or why that cannot be told: of another user's segment it is
    /// [`NameError::NotOurs`], since that user could cut it while it is being looked at.
    pub unread: Result<Unread, SegmentError>,
}

/// The named segments in shared memory, sorted by name; those that this process may not open are left
/// out. Only looks: everything may have changed when it is read.
///
/// # Errors
/// [`SegmentError::Os`], where the directory cannot be read.
pub fn list() -> Result<Vec<Listed>, SegmentError> {
    let mut listed = Vec::new();
    for file_name in file_names()? {
        let Some(name) = file_name.strip_prefix(PREFIX) else { continue };
        let Ok(found) = Found::open_to_inspect(&Address::from(name)) else { continue };
        let holder = |side| match found.claim().is_taken(side) {
            Ok(true) => Holder::Process(found.pid_of(side)),
            _ => Holder::Nobody,
        };
        listed.push(Listed {
            name: name.into(),
            len_bytes: found.len_bytes(),
            sides: [holder(0), holder(1)],
            unread: unread_of(&found),
        });
    }
    listed.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(listed)
}

fn unread_of(found: &Found) -> Result<Unread, SegmentError> {
    let geometry: ChannelGeometry = found.geometry()?;
    let [to_second, to_first] = unread(&found.inspect(geometry.fence_mode)?, &geometry)?;
    Ok(Unread { to_second, to_first })
}

/// Clears shared memory: what creators have left half made that died over it, and segments that nobody
/// alive has and in which nothing is unread. Returns the names of the files that are gone.
///
/// # Errors
/// [`SegmentError::Os`], where the directory cannot be read. What cannot be opened or removed stays.
pub fn gc() -> Result<Vec<String>, SegmentError> {
    gc_where(|_| true)
}

/// As [`gc`], only for segments whose name is `chosen`.
///
/// # Errors
/// As [`gc`].
pub fn gc_where(mut chosen: impl FnMut(&str) -> bool) -> Result<Vec<String>, SegmentError> {
    let mut removed = Vec::new();
    for file_name in file_names()? {
        let half_made = file_name.strip_prefix(TEMPORARY_PREFIX);
        let name = half_made.and_then(|rest| rest.rsplit_once(TEMPORARY_SEPARATOR));
        let name = name.map(|(name, _)| name).or_else(|| file_name.strip_prefix(PREFIX));
        let Some(name) = name.filter(|name| chosen(name)) else { continue };
        let gone = if half_made.is_none() {
            remove_if(&Address::from(name), |found| {
                let unread = unread_of(found)?;
                Ok(unread == Unread { to_second: 0, to_first: 0 })
            })
            .unwrap_or(false)
        } else {
            remove_temporary(&Path::new(SHARED_DIRECTORY).join(&file_name)).unwrap_or(false)
        };
        if gone {
            removed.push(file_name);
        }
    }
    Ok(removed)
}

/// Removes a segment, whatever is unread in it, or whatever else has its name in shared memory.
///
/// # Errors
/// [`NameError::AlreadyClaimed`] while somebody alive has a side, [`NameError::NotFound`] where there is
/// none; a file that is no segment, where a path was given, is refused as [`NameError::Stale`] or
/// [`SegmentError::Incompatible`].
pub fn remove(address: impl Into<Address>) -> Result<(), SegmentError> {
    let address = address.into();
    let may_go = |found: &Found| {
        if !found.is_replaceable() {
            found.geometry::<ChannelGeometry>()?;
        }
        Ok(true)
    };
    remove_if(&address, may_go).map(drop)
}

/// Removes what has this name, if nobody alive has a side and `may_go`; false where it may not.
fn remove_if(
    address: &Address,
    may_go: impl Fn(&Found) -> Result<bool, SegmentError>,
) -> Result<bool, SegmentError> {
    let deadline = Deadline::at_ns(monotonic_ns().saturating_add(super::open::PATIENCE_NS));
    // Any mode: it is to go.
    let access = Access { mode: 0o777, owner: None };
    loop {
        let found = Found::open(address, &access)?;
        let Some(gate) = found.gate(deadline)? else { continue };
        if !gate.take_both()? {
            let side = usize::from(!gate.taken()?[0]);
            let (address, pid) = (address.to_string(), found.pid_of(side));
            return Err(NameError::AlreadyClaimed { address, side, pid }.into());
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
