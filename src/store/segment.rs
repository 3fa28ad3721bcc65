//! A store's segment as one process has it: mapped, checked, and given back when the last handle goes.
//!
//! The openers make one; all handles of a process share it.
//! What always holds: what was mapped for writing is of this process's user, and nobody else can open it for
//! writing; its lock belongs to this pid namespace; the measures are a private copy.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use super::header::StoreHeader;
use super::{Core, Refusal, StoreGeometry, StoreOptions, shared, usage};
use crate::error::{NameError, SegmentError};
use crate::identity::participant::LockFile;
use crate::memory::{FenceMode, MappedMemory, Memory};
use crate::os::claims::Unforked;
use crate::os::clock::monotonic_ns;
use crate::os::{memfd, os};
use crate::segment::{Access, Address, AnonymousSegment, Binding, Found, Kind, Whole, patience};

/// Of this process's user, and nobody else can open it.
pub(super) const TRUSTED: Access = Access { mode: 0o777 & !NOT_TRUSTED, owner: None };
/// Permission bits with which somebody else can write, or lock.
pub(super) const NOT_TRUSTED: u32 = 0o077;

/// See the module.
#[derive(Debug)]
pub struct StoreSegment {
    memory: MappedMemory,
    header: StoreHeader,
    backing: Backing,
    /// The description on which a participant of a store without a name has its lock; `None` where there is
    /// no second one to be had.
    locks: Option<Unforked>,
}

/// What keeps the memory.
#[derive(Debug)]
enum Backing {
    Anonymous(AnonymousSegment<StoreHeader>),
    Named(Whole<StoreHeader>),
    /// A file that is only looked at.
    ReadOnly(Binding),
}

impl StoreSegment {
    /// Creates an empty store in a sealed memory file: space reserved, pages populated.
    ///
    /// # Errors
    /// [`StoreMeasures`](SegmentError::StoreMeasures) for what no store can have,
    /// [`NoSpace`](SegmentError::NoSpace) where the memory is not to be had,
    /// [`Os`](SegmentError::Os) otherwise. Nothing is kept.
    pub fn anonymous(options: &StoreOptions) -> Result<Self, SegmentError> {
        let segment = AnonymousSegment::make(&options.header()?, |memory, header| {
            fill(memory, header, [0; 3])
        })?;
        Ok(Self::of(segment.keep_reader()))
    }

    /// Attaches a store in a memory file that somebody else made, for writing.
    ///
    /// # Errors
    /// [`NameError::NotOurs`] where the file is not this user's, or others may write it;
    /// [`PidNamespace`](SegmentError::PidNamespace) where it was made in another pid namespace;
    /// [`NotMemory`](SegmentError::NotMemory), [`Unsealed`](SegmentError::Unsealed),
    /// [`TooSmall`](SegmentError::TooSmall) or [`Incompatible`](SegmentError::Incompatible) where the
    /// descriptor is not what it should be; otherwise as [`anonymous`](Self::anonymous). The descriptor
    /// is closed.
    pub fn attach(fd: OwnedFd) -> Result<Self, SegmentError> {
        let file = File::from(fd);
        // Before anything is asked that a file system in user space would have to answer.
        memfd::check_kind(file.as_fd())?;
        let found = file.metadata().map_err(os("fstat"))?;
        // Whoever could write it can do anything to this process.
        TRUSTED.check(&"memory file", &found)?;
        let segment = AnonymousSegment::map(file.into(), true, decode)?;
        let segment = Self::of(segment);
        usage::check_namespace(&segment.memory)?;
        Ok(segment)
    }

    /// As [`attach`](Self::attach), to be read by copying: whosever it is, nothing there needs to be
    /// believed.
    ///
    /// # Errors
    /// As [`attach`](Self::attach), but for the first two.
    pub fn attach_read_only(fd: OwnedFd) -> Result<Self, SegmentError> {
        AnonymousSegment::map(fd, false, decode).map(Self::of)
    }

    /// Maps a store of this user's for reading only, whoever has it: to be read by copying.
    ///
    /// # Errors
    /// As [`Store::open`](super::Store::open), but for the pid namespace and the damage, which nobody
    /// looks for.
    pub fn open_read_only(address: impl Into<Address>) -> Result<Self, SegmentError> {
        let (address, deadline) = (address.into(), patience());
        loop {
            let found = Found::open_to_inspect(&address)?;
            let header: StoreHeader = found.geometry()?;
            if let Some(memory) = found.inspect(FenceMode::Real)? {
                let backing = Backing::ReadOnly(found.binding());
                return Ok(Self { memory, header, backing, locks: None });
            }
            // The name means another file meanwhile: look at that one.
            if monotonic_ns() >= deadline.as_ns() {
                return Err(NameError::Busy { address: address.to_string() }.into());
            }
        }
    }

    fn of(segment: AnonymousSegment<StoreHeader>) -> Self {
        let (memory, header) = (segment.memory().clone(), *segment.geometry());
        // Where it fails, the pidfd decides about this process's death.
        let reopen = || memfd::reopen(segment.as_fd(), true).ok();
        let locks = memory.is_writable().then(reopen).flatten();
        let locks = locks.and_then(|fd| Unforked::new(File::from(fd)).ok());
        Self { memory, header, backing: Backing::Anonymous(segment), locks }
    }

    /// One with a name, of whose users this process is one.
    pub(super) fn of_named(segment: Whole<StoreHeader>) -> Self {
        let (memory, header) = (segment.memory().clone(), *segment.geometry());
        Self { memory, header, backing: Backing::Named(segment), locks: None }
    }

    /// The mapped memory. Not for users: they could write to what is lent out.
    pub(super) fn memory(&self) -> &MappedMemory {
        &self.memory
    }

    /// Where this process locks its participant's byte; `None` where it only reads.
    pub(super) fn lock_file(&self) -> Option<LockFile<'_>> {
        match (&self.backing, &self.locks) {
            (Backing::Named(whole), _) => Some(own(whole.claim().file())),
            (Backing::Anonymous(_), Some(locks)) => Some(own(locks.file())),
            (Backing::Anonymous(segment), None) if self.memory.is_writable() => {
                Some(LockFile { fd: segment.as_fd(), is_own: false })
            }
            (Backing::Anonymous(_) | Backing::ReadOnly(_), _) => None,
        }
    }

    /// The measures of the store.
    pub fn geometry(&self) -> &StoreGeometry {
        &self.header.geometry
    }

    /// Random number of this segment.
    pub fn incarnation(&self) -> u128 {
        self.header.incarnation
    }

    /// Whether its name still means it; true where it has none.
    pub(super) fn is_current(&self) -> bool {
        match &self.backing {
            Backing::Anonymous(_) => true,
            Backing::Named(segment) => segment.is_current(),
            Backing::ReadOnly(binding) => binding.is_current(),
        }
    }

    /// The memory file of a store without a name.
    pub(super) fn file(&self) -> Option<&AnonymousSegment<StoreHeader>> {
        match &self.backing {
            Backing::Anonymous(segment) => Some(segment),
            Backing::Named(_) | Backing::ReadOnly(_) => None,
        }
    }
}

impl Drop for StoreSegment {
    fn drop(&mut self) {
        // A forked child has nothing to close.
        if let Backing::Named(segment) = &self.backing
            && self.memory.is_ours()
        {
            usage::close(segment);
        }
    }
}

fn decode(
    bytes: [u8; crate::segment::HEADER_BYTES],
    len_bytes: u64,
) -> Result<StoreHeader, SegmentError> {
    StoreHeader::decode(bytes, len_bytes, 1)
}

/// A description that belongs to one participant alone.
fn own(file: &File) -> LockFile<'_> {
    LockFile { fd: file.as_fd(), is_own: true }
}

/// Makes an empty store of memory that is all zeros, in a file with this device and inode.
pub(super) fn fill(
    memory: &MappedMemory,
    header: &StoreHeader,
    file: [u64; 3],
) -> Result<(), SegmentError> {
    memory.copy_in(0, &header.to_header());
    let StoreHeader { geometry, .. } = *header;
    shared::make_lock(memory, &geometry).map_err(os("pthread_mutex_init"))?;
    Core::new(memory.clone(), geometry).format().map_err(|refusal| match refusal {
        Refusal::OutOfSpace => {
            SegmentError::StoreMeasures { pages: geometry.pages(), readers: geometry.readers() }
        }
        _ => SegmentError::Damaged { what: "a new store" },
    })?;
    usage::claim(memory, file);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::layout::store::usage::PID_NAMESPACE;
    use crate::memory::Ordering;
    use crate::store::{Owner, Reader};

    fn options() -> StoreOptions {
        StoreOptions { capacity_bytes: 1 << 20, max_readers: 4, ..StoreOptions::default() }
    }

    fn core(segment: &StoreSegment) -> Core<MappedMemory> {
        Core::new(segment.memory().clone(), *segment.geometry())
    }

    #[test]
    fn what_one_process_sets_the_other_reads() {
        let ours = StoreSegment::anonymous(&options()).unwrap();
        let file = ours.file().unwrap();
        let theirs = StoreSegment::attach(file.descriptor().unwrap()).unwrap();
        assert_eq!(ours.geometry(), theirs.geometry());
        assert_eq!(ours.incarnation(), theirs.incarnation());
        core(&ours).set(b"motd", b"hello").unwrap();
        let reader =
            Reader::claim(theirs.memory().clone(), *theirs.geometry(), Owner::new(1, 1)).unwrap();
        assert_eq!(reader.get(b"motd").unwrap().unwrap().to_vec(), b"hello");
        core(&theirs).set(b"motd", b"good-bye").unwrap();
        core(&ours).check().unwrap();

        let looks_on = file.descriptor_read_only().unwrap();
        assert!(matches!(
            StoreSegment::attach(looks_on.try_clone().unwrap()),
            Err(SegmentError::Os { call: "mmap", .. })
        ));
        let looks_on = StoreSegment::attach_read_only(looks_on).unwrap();
        assert!(!looks_on.memory().is_writable());
    }

    #[test]
    fn f16_what_is_no_store_or_could_be_written_by_others_is_refused() {
        let ours = StoreSegment::anonymous(&options()).unwrap();
        let file = File::from(ours.file().unwrap().descriptor().unwrap());
        file.set_permissions(PermissionsExt::from_mode(0o620)).unwrap();
        let refused = StoreSegment::attach(file.as_fd().try_clone_to_owned().unwrap());
        assert!(
            matches!(refused, Err(SegmentError::Name(NameError::NotOurs { .. }))),
            "{refused:?}"
        );
        // Who only copies what he has checked need not care.
        StoreSegment::attach_read_only(file.into()).unwrap();

        let channel =
            crate::channel::Channel::anonymous(&crate::channel::ChannelOptions::default()).unwrap();
        let refused = StoreSegment::attach(channel.descriptor().unwrap());
        assert!(matches!(refused, Err(SegmentError::Incompatible { field: "kind", .. })));
        let null = File::open("/dev/null").unwrap();
        let refused = StoreSegment::attach_read_only(null.into());
        assert!(matches!(refused, Err(SegmentError::NotMemory { .. })));
        let unsealed = crate::os::memfd::create(1 << 20).unwrap();
        assert!(unsealed.as_raw_fd() > 2);
        let refused = StoreSegment::attach_read_only(unsealed.into());
        assert!(matches!(refused, Err(SegmentError::Unsealed { .. })));
    }

    #[test]
    fn f13_a_store_of_another_pid_namespace_is_refused_for_writing() {
        let ours = StoreSegment::anonymous(&options()).unwrap();
        let file = ours.file().unwrap();
        let own = ours.memory().load_u64(PID_NAMESPACE, Ordering::Relaxed);
        assert_ne!(own, 0);
        ours.memory().store_u64(PID_NAMESPACE, own + 1, Ordering::Relaxed);
        let refused = StoreSegment::attach(file.descriptor().unwrap());
        assert!(matches!(refused, Err(SegmentError::PidNamespace { found, expected })
            if (found, expected) == (own + 1, own)));
        StoreSegment::attach_read_only(file.descriptor_read_only().unwrap()).unwrap();
    }
}
