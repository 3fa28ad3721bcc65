//! Drafts: segments that are made under a temporary name, and get their own name when they are whole.
//!
//! `channel::open` and `store::open` make one where there is none, or in the place of a dead one.
//!
//! Invariants:
//! - A name means a whole segment, whose creator holds its locks, or nothing.
//! - The draft of a killed creator has a draft's name and no locks. [`gc`](crate::channel::gc), and
//!   the next creator of the same segment, remove it.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::address::{Access, Address, SHARED_DIRECTORY};
use super::anonymous::register;
use super::binding::Binding;
use super::claim::Claim;
use super::directory::clear_drafts;
use super::named::{Found, Whole, refused};
use super::open::patience;
use super::words::Kind;
use crate::error::{NameError, SegmentError};
use crate::memory::{MappedMemory, Memory};
use crate::os::mapping::Mapping;
use crate::os::names::{self, FileId};
use crate::os::{limits, memfd, os, random};

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
        let path = address.temporary(incarnation)?;
        let cannot = |error| cannot_create(address, &path, len_bytes, error);
        let no_space = |source| cannot(limits::no_room(len_bytes, source));
        clear_own_drafts(address, &path);
        memfd::refuse_more_than_available(len_bytes).map_err(no_space)?;
        let made = match address {
            Address::Name(_) => {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                names::create_shared(SHARED_DIRECTORY, &name, len_bytes)
            }
            Address::File(_) => names::create_file(&path, len_bytes).map(|()| true),
        };
        // First: also what failed half way has the name.
        let temporary = Temporary(path.clone());
        if !made.map_err(no_space)? {
            return Ok(None);
        }
        let Some(claim) = own(&path, take)? else { return Ok(None) };
        let Some(file) = open_again(&path, &claim)? else { return Ok(None) };
        let page_bytes = names::page_bytes(&file).map_err(os("fstatfs"))?;
        let file_bytes = len_bytes.next_multiple_of(page_bytes);
        match names::reserve(&file, file_bytes) {
            // Then populating decides.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
            reserved => reserved.map_err(no_space)?,
        }
        let mapping = Mapping::read_write(&file, file_bytes).map_err(cannot)?;
        let memory =
            MappedMemory::from_mapping(Arc::new(mapping), geometry.fence_mode(), generation);
        memory.copy_in(0, &geometry.encode()?);
        let id = FileId::of(&file).map_err(os("fstat"))?;
        fill(&memory, &geometry, id)?;
        let is_file = matches!(address, Address::File(_));
        if is_file {
            // A name that outlives the machine's uptime must not mean less than this.
            file.sync_all().map_err(no_space)?;
        }
        // Last, and whatever the umask: until now only this user could open it.
        permit(&file, access).map_err(|error| refused(address, error))?;
        let binding = Binding::new(&address.path()?, id);
        let segment = Whole { memory, geometry, claim, is_file, binding };
        Ok(Some(Self { segment, address: address.clone(), temporary }))
    }

    /// Gives it its name, which must be free; `None` where it is not, or where somebody has cleared the
    /// draft away.
    pub(crate) fn publish(self) -> Result<Option<Whole<G>>, SegmentError> {
        let (draft, path) = (&self.temporary.0, self.address.path()?);
        let named = match names::link(draft, &path) {
            // Some file systems have no hard links, some sandboxes do not allow them.
            Err(error) if is_unsupported(&error) => names::rename_new(draft, &path),
            named => named,
        };
        match named {
            Ok(()) => Ok(Some(self.segment)),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EEXIST | libc::ENOENT)) => {
                Ok(None)
            }
            Err(error) if is_unsupported(&error) => self.publish_over_blank(&path),
            Err(error) => Err(refused(&self.address, error)),
        }
    }

    /// As [`publish`](Self::publish), where a file can only be renamed over another: takes the name with
    /// a blank file first, and replaces that one as any dead segment. Whoever opens the name between the
    /// two steps finds it [`Stale`](crate::error::NameError::Stale).
    fn publish_over_blank(self, path: &Path) -> Result<Option<Whole<G>>, SegmentError> {
        match names::create_file(path, 0) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
            Err(error) => return Err(refused(&self.address, error)),
        }
        let blank = match Found::open(&self.address, &Access::default()) {
            Ok(found) => found,
            // Somebody has removed it.
            Err(SegmentError::Name(NameError::NotFound { .. })) => return Ok(None),
            Err(error) => return Err(error),
        };
        blank.supersede(self, patience(), || blank.is_blank())
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

/// Whether a call says that there is no such thing here, rather than that it failed.
fn is_unsupported(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    matches!(
        code,
        Some(libc::EPERM | libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL | libc::EMLINK)
    )
}

/// The error where a segment cannot be made: names the directory, the room that is needed, and the way
/// out.
fn cannot_create(
    address: &Address,
    draft: &Path,
    needed_bytes: u64,
    error: SegmentError,
) -> SegmentError {
    let SegmentError::NoSpace { source, .. } = error else { return error };
    if matches!(source.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) {
        return os("open")(source);
    }
    let directory = directory_of(draft);
    NameError::CannotCreate {
        address: address.to_string(),
        directory: directory.display().to_string(),
        needed_bytes,
        free_bytes: names::free_bytes(directory),
        source,
    }
    .into()
}

/// Where a file lies.
fn directory_of(path: &Path) -> &Path {
    let directory = path.parent().filter(|path| !path.as_os_str().is_empty());
    directory.unwrap_or(Path::new("."))
}

/// Removes what dead creators of the same segment have left, before more room is taken. What cannot be
/// removed stays: then making the new one decides.
fn clear_own_drafts(address: &Address, draft: &Path) {
    let _ = clear_drafts(directory_of(draft), |file_name| address.is_own_draft(file_name));
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
    let file = match names::open(path, true) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(os("open")(error)),
    };
    let ids = (FileId::of(&file), FileId::of(claim.file()));
    Ok((ids.0.map_err(os("fstat"))? == ids.1.map_err(os("fstat"))?).then_some(file))
}

fn permit(file: &fs::File, access: &Access) -> io::Result<()> {
    if let Some(owner) = access.owner.filter(|owner| *owner != names::effective_user()) {
        fchown(file, Some(owner), None)?;
    }
    file.set_permissions(PermissionsExt::from_mode(access.mode & 0o777))
}
