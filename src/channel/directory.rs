//! Lists named channels, and removes those that nobody needs.
//!
//! Tools and tests call it, and services when they start.
//!
//! Invariants: nothing is removed that a living process uses; unread messages are removed only with a
//! channel that was asked for by its name.

use super::open::unread;
use crate::error::{NameError, SegmentError};
use crate::layout::segment::KIND_CHANNEL;
use crate::segment::directory::{self, Look};
use crate::segment::{Address, ChannelGeometry, Cleared, Found, Gate, Listing, patience};

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

/// The channels with a name in shared memory, sorted by name, and what has no whole header. Names that
/// cannot be looked at, for want of descriptors or of permission, are in [`Listing::skipped`].
///
/// The answer may be outdated when it is read.
///
/// # Errors
/// [`NameError::Directory`], where the directory cannot be read.
pub fn list() -> Result<Listing<Listed>, SegmentError> {
    let deadline = patience();
    directory::list(|name, found| {
        let unread = match unread_of(found) {
            Ok(Some(unread)) => Ok(unread),
            Ok(None) => return Ok(Look::Gone),
            // A store, which is listed elsewhere.
            Err(SegmentError::Incompatible { field: "kind", .. }) => return Ok(Look::Other),
            Err(error) => Err(error),
        };
        let holder = |side| {
            Ok::<_, SegmentError>(match found.is_used(side, deadline)? {
                true => Holder::Process(found.pid_of(side)),
                false => Holder::Nobody,
            })
        };
        let sides = [holder(0)?, holder(1)?];
        let (name, len_bytes) = (name.into(), found.len_bytes());
        Ok(Look::Listed(Listed { name, len_bytes, sides, unread }))
    })
}

/// What is unread in a segment; `None` where its name means another file meanwhile.
fn unread_of(found: &Found) -> Result<Option<Unread>, SegmentError> {
    let geometry: ChannelGeometry = found.geometry()?;
    let Some(memory) = found.inspect(geometry.fence_mode)? else { return Ok(None) };
    let [to_second, to_first] = unread(&memory, &geometry)?;
    Ok(Some(Unread { to_second, to_first }))
}

/// Clears shared memory: removes the drafts of dead creators, blank files, and segments that nobody
/// alive uses and in which nothing is unread.
///
/// # Errors
/// [`NameError::Directory`], where the directory cannot be read. What cannot be looked at or removed
/// is in [`Cleared::skipped`].
pub fn gc() -> Result<Cleared, SegmentError> {
    gc_where(|_| true)
}

/// As [`gc`], only for segments whose name is `chosen`.
///
/// # Errors
/// As [`gc`].
pub fn gc_where(chosen: impl FnMut(&str) -> bool) -> Result<Cleared, SegmentError> {
    directory::clear(chosen, |found| match unread_of(found) {
        Ok(unread) => Ok(unread == Some(Unread { to_second: 0, to_first: 0 })),
        // A store, which is cleared elsewhere.
        Err(SegmentError::Incompatible { field: "kind", .. }) => Ok(false),
        Err(_) if found.is_blank()? => Ok(true),
        Err(error) => Err(error),
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
