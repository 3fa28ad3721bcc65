//! Segments in the making: whole before they have their name.
//!
//! `channel::open` and `store::open` make one where there is none, or where the one that there is has
//! died.
//! What always holds: a name means a whole segment whose creator has its locks, or nothing; what a
//! creator leaves that is killed on the way has a temporary's name and no locks, by which
//! [`gc`](crate::channel::gc) knows it.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::address::{Access, Address, SHARED_DIRECTORY};
use super::anonymous::register;
use super::claim::Claim;
use super::named::{Whole, refused};
use super::words::Kind;
use crate::error::SegmentError;
use crate::memory::{MappedMemory, Memory};
use crate::os::mapping::Mapping;
use crate::os::names::{self, FileId};
use crate::os::{memfd, os, random};

/// A whole segment under a temporary name, whose locks this process has.
#[derive(Debug)]
pub(crate) struct Draft<G> {
    segment: Whole<G>,
    address: Address,
    temporary: Temporary,
}

/// A name that is taken away when it is dropped.
#[derive(Debug)]
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

impl<G: Kind> Draft<G> {
    /// Makes a segment, takes with `take` the locks that its creator keeps, and lets `fill` write what
    /// is in it besides the header. `None` where somebody has cleared the half-made one away: try
    /// again.
    pub(crate) fn create(
        address: &Address,
        access: &Access,
        geometry: &G,
        take: impl FnOnce(&Claim) -> Result<bool, SegmentError>,
        fill: impl FnOnce(&MappedMemory, &G, FileId) -> Result<(), SegmentError>,
    ) -> Result<Option<Self>, SegmentError> {
        let incarnation = random::random_u128().map_err(os("getrandom"))?;
        let geometry = geometry.with_incarnation(incarnation);
        let len_bytes = geometry.len_bytes()?;
        let generation = register(geometry.fence_mode())?;
        let no_space = |source| SegmentError::NoSpace { len_bytes, source };
        memfd::refuse_more_than_available(len_bytes).map_err(no_space)?;
        let path = address.temporary(incarnation)?;
        let made = match address {
            Address::Name(_) => {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                names::create_shared(SHARED_DIRECTORY, &name, len_bytes)
            }
            Address::File(_) => names::create_file(&path, len_bytes),
        };
        // First: also what failed half way has the name.
        let temporary = Temporary(path);
        made.map_err(|error| shortage(address, len_bytes, error))?;
        let Some(claim) = own(&temporary.0, take)? else { return Ok(None) };
        let Some(file) = open_again(&temporary.0, &claim)? else { return Ok(None) };
        let page_bytes = names::page_bytes(&file).map_err(os("fstatfs"))?;
        let file_bytes = len_bytes.next_multiple_of(page_bytes);
        match names::reserve(&file, file_bytes) {
            // Then populating decides.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
            reserved => reserved.map_err(no_space)?,
        }
        let mapping = Mapping::read_write(&file, file_bytes)?;
        let memory =
            MappedMemory::from_mapping(Arc::new(mapping), geometry.fence_mode(), generation);
        memory.copy_in(0, &geometry.encode()?);
        fill(&memory, &geometry, FileId::of(&file).map_err(os("fstat"))?)?;
        let is_file = matches!(address, Address::File(_));
        if is_file {
            // A name that outlives the machine's uptime must not mean less than this.
            file.sync_all().map_err(no_space)?;
        }
        // Last, and whatever the umask: until now only this user could open it.
        permit(&file, access).map_err(|error| refused(address, error))?;
        let segment = Whole { memory, geometry, claim, is_file };
        Ok(Some(Self { segment, address: address.clone(), temporary }))
    }

    /// Gives it its name, which must be free; `None` where it is not.
    pub(crate) fn publish(self) -> Result<Option<Whole<G>>, SegmentError> {
        let path = self.address.path()?;
        match names::link(&self.temporary.0, &path) {
            Ok(()) => Ok(Some(self.segment)),
            // The latter: somebody has cleared it away.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EEXIST | libc::ENOENT)) => {
                Ok(None)
            }
            Err(error) => Err(refused(&self.address, error)),
        }
    }

    /// Gives it the name of a dead one, all of whose locks the caller has.
    pub(crate) fn replace(self, dead: &Path) -> Result<Option<Whole<G>>, SegmentError> {
        match fs::rename(&self.temporary.0, dead) {
            Ok(()) => Ok(Some(self.segment)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(refused(&self.address, error)),
        }
    }
}

/// Takes the lock that keeps others from clearing the file away.
fn own(
    path: &Path,
    take: impl FnOnce(&Claim) -> Result<bool, SegmentError>,
) -> Result<Option<Claim>, SegmentError> {
    let file = match names::open(path, true) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(os("open")(error)),
    };
    let claim = Claim::new(file)?;
    // Who clears away takes all locks first, and the name only then.
    if !take(&claim)? {
        return Ok(None);
    }
    let found = claim.file().metadata().map_err(os("fstat"))?;
    let ours = found.is_file() && found.uid() == names::effective_user();
    Ok((ours && found.nlink() == 1).then_some(claim))
}

/// A description for the mapping.
fn open_again(path: &Path, claim: &Claim) -> Result<Option<fs::File>, SegmentError> {
    let file = names::open(path, true).map_err(os("open"))?;
    let ids = (FileId::of(&file), FileId::of(claim.file()));
    Ok((ids.0.map_err(os("fstat"))? == ids.1.map_err(os("fstat"))?).then_some(file))
}

fn permit(file: &fs::File, access: &Access) -> io::Result<()> {
    if let Some(owner) = access.owner.filter(|owner| *owner != names::effective_user()) {
        fchown(file, Some(owner), None)?;
    }
    file.set_permissions(PermissionsExt::from_mode(access.mode & 0o777))
}

fn shortage(address: &Address, len_bytes: u64, source: io::Error) -> SegmentError {
    match source.raw_os_error() {
        Some(libc::ENOSPC | libc::ENOMEM | libc::EFBIG | libc::EDQUOT) => {
            SegmentError::NoSpace { len_bytes, source }
        }
        _ => refused(address, source),
    }
}
