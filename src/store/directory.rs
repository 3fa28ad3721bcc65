//! What stores there are in shared memory, and clearing away those that nobody needs.
//!
//! Tools and tests call it. What always holds: nothing is removed that somebody alive has, nor, unless it
//! was asked for by name, a store with keys in it.

use super::header::StoreHeader;
use super::named::{in_use, keys};
#[cfg(doc)]
use crate::error::NameError;
use crate::error::SegmentError;
use crate::layout::segment::KIND_STORE;
use crate::layout::store::{LIVE_KEYS, usage};
use crate::segment::{Address, Found, directory};

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

/// The stores with a name in shared memory, sorted by name; those that this process may not open are left out.
/// Only looks: everything may have changed when it is read.
///
/// # Errors
/// [`SegmentError::Os`], where the directory cannot be read.
pub fn list() -> Result<Vec<Listed>, SegmentError> {
    let mut listed = Vec::new();
    for (name, found) in directory::found()? {
        if found.geometry::<StoreHeader>().is_err() {
            continue;
        }
        listed.push(Listed {
            name,
            len_bytes: found.len_bytes(),
            in_use: found.claim().is_taken(0).unwrap_or(true),
            opened_by: found.u32_at(usage::PID),
            keys: found.u64_at(LIVE_KEYS),
        });
    }
    Ok(listed)
}

/// Clears shared memory: what creators have left half made that died over it, and stores that nobody alive has
/// and in which nothing is. Returns the names of the files that are gone.
///
/// # Errors
/// [`SegmentError::Os`], where the directory cannot be read. What cannot be opened or removed stays.
pub fn gc() -> Result<Vec<String>, SegmentError> {
    gc_where(|_| true)
}

/// As [`gc`], only for stores whose name is `chosen`.
///
/// # Errors
/// As [`gc`].
pub fn gc_where(chosen: impl FnMut(&str) -> bool) -> Result<Vec<String>, SegmentError> {
    // Whatever is no store, somebody else clears away.
    directory::clear(chosen, |found| {
        Ok(found.geometry::<StoreHeader>().is_ok() && keys(found)? == 0)
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
