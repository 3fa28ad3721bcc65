//! Lists named stores, and removes those that nobody needs.
//!
//! Tools and tests call it.
//!
//! Invariants: nothing is removed that a living process uses; a store with keys is removed only where
//! it was asked for by its name.

use super::header::StoreHeader;
use super::named::{in_use, keys};
#[cfg(doc)]
use crate::error::NameError;
use crate::error::SegmentError;
use crate::layout::segment::KIND_STORE;
use crate::layout::store::{LIVE_KEYS, usage};
use crate::segment::directory::{self, Look};
use crate::segment::{Address, Cleared, Found, Listing, patience};

/// A store in shared memory.
#[derive(Debug)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Its length in bytes.
    pub len_bytes: u64,
    /// Whether somebody alive has it open for writing.
    pub in_use: bool,
    /// The process that opened it when nobody else had it, in its own pid namespace and by its own word.
    pub opened_by: u32,
    /// How many keys it has, as far as can be told without opening it.
    pub keys: u64,
}

/// The stores with a name in shared memory, sorted by name. Names that cannot be looked at, for want of
/// descriptors or of permission, are in [`Listing::skipped`].
///
/// The answer may be outdated when it is read.
///
/// # Errors
/// [`NameError::Directory`], where the directory cannot be read.
pub fn list() -> Result<Listing<Listed>, SegmentError> {
    let deadline = patience();
    directory::list(|name, found| {
        if found.geometry::<StoreHeader>().is_err() {
            return Ok(Look::Other);
        }
        Ok(Look::Listed(Listed {
            name: name.into(),
            len_bytes: found.len_bytes(),
            in_use: found.is_used(0, deadline)?,
            opened_by: found.u32_at(usage::PID),
            keys: found.u64_at(LIVE_KEYS),
        }))
    })
}

/// Clears shared memory: removes the drafts of dead creators, blank files, and stores that nobody alive
/// uses and in which nothing is.
///
/// # Errors
/// [`NameError::Directory`], where the directory cannot be read. What cannot be looked at or removed
/// is in [`Cleared::skipped`].
pub fn gc() -> Result<Cleared, SegmentError> {
    gc_where(|_| true)
}

/// As [`gc`], only for stores whose name is `chosen`.
///
/// # Errors
/// As [`gc`].
pub fn gc_where(chosen: impl FnMut(&str) -> bool) -> Result<Cleared, SegmentError> {
    directory::clear(chosen, |found| match found.geometry::<StoreHeader>() {
        Ok(_) => Ok(keys(found)? == 0),
        // A channel, which is cleared elsewhere.
        Err(SegmentError::Incompatible { field: "kind", .. }) => Ok(false),
        Err(_) if found.is_blank()? => Ok(true),
        Err(error) => Err(error),
    })
}

/// Removes a store, whatever is in it, or whatever else has its name in shared memory and is no channel.
///
/// # Errors
/// [`NameError::AlreadyExists`] while somebody alive has it, [`NameError::NotFound`] where there is none; a
/// file that is no segment, where a path was given, is refused as [`NameError::Stale`] or
/// [`SegmentError::Incompatible`], a channel as the latter.
pub fn remove(address: impl Into<Address>) -> Result<(), SegmentError> {
    let address = address.into();
    let may_go = |found: &Found| {
        if !found.is_replaceable(KIND_STORE)? {
            found.geometry::<StoreHeader>()?;
        }
        Ok(true)
    };
    directory::remove_if(&address, may_go, |found, _| Ok(Some(in_use(&address, found)))).map(drop)
}
