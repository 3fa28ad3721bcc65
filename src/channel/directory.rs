//! What named segments there are, and clearing away those that nobody needs.
//!
//! Tools and tests call it, and whoever starts a service anew. What always holds: nothing is removed
//! that somebody alive has, nor, unless it was asked for by name, anything with unread messages.

use super::open::unread;
use crate::error::{NameError, SegmentError};
use crate::layout::segment::KIND_CHANNEL;
use crate::segment::{Address, ChannelGeometry, Found, Gate, directory};

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

/// The channels with a name in shared memory, sorted by name, and what has no whole header; those that this
/// process may not open are left out. Only looks: everything may have changed when it is read.
///
/// # Errors
/// [`SegmentError::Os`], where the directory cannot be read.
pub fn list() -> Result<Vec<Listed>, SegmentError> {
    let mut listed = Vec::new();
    for (name, found) in directory::found()? {
        let unread = unread_of(&found);
        // A store, which is listed elsewhere.
        if matches!(unread, Err(SegmentError::Incompatible { field: "kind", .. })) {
            continue;
        }
        let holder = |side| match found.claim().is_taken(side) {
            Ok(true) => Holder::Process(found.pid_of(side)),
            _ => Holder::Nobody,
        };
        let sides = [holder(0), holder(1)];
        listed.push(Listed { name, len_bytes: found.len_bytes(), sides, unread });
    }
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
pub fn gc_where(chosen: impl FnMut(&str) -> bool) -> Result<Vec<String>, SegmentError> {
    directory::clear(chosen, |found| {
        let unread = unread_of(found)?;
        Ok(unread == Unread { to_second: 0, to_first: 0 })
    })
}

/// Removes a channel, whatever is unread in it, or whatever else has its name in shared memory and is no
/// store.
///
/// # Errors
/// [`NameError::AlreadyClaimed`] while somebody alive has a side, [`NameError::NotFound`] where there is
/// none; a file that is no segment, where a path was given, is refused as [`NameError::Stale`] or
/// [`SegmentError::Incompatible`], a store as the latter.
pub fn remove(address: impl Into<Address>) -> Result<(), SegmentError> {
    let address = address.into();
    let may_go = |found: &Found| {
        if !found.is_replaceable(KIND_CHANNEL)? {
            found.geometry::<ChannelGeometry>()?;
        }
        Ok(true)
    };
    let in_use = |found: &Found, gate: &Gate<'_>| {
        let side = usize::from(!gate.taken()?[0]);
        let (address, pid) = (address.to_string(), found.pid_of(side));
        Ok(Some(NameError::AlreadyClaimed { address, side, pid }.into()))
    };
    directory::remove_if(&address, may_go, in_use).map(drop)
}
