//! A store's segment as one process has it: mapped, checked, and given back when the last handle goes.
//!
//! The openers make one; all handles of a process share it.
//! What always holds: what was mapped for writing is of this process's user, and nobody else can open it for
//! writing; its lock belongs to this pid namespace; the measures are a private copy.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use super::descriptors::StoreDescriptors;
use super::header::{PublicHeader, StoreHeader};
use super::{Core, Refusal, StoreGeometry, StoreOptions, shared, usage};
use crate::error::{NameError, SegmentError};
use crate::identity::participant::LockFile;
use crate::memory::{FenceMode, MappedMemory, Memory};
use crate::os::claims::Unforked;
use crate::os::clock::monotonic_ns;
use crate::os::{memfd, os};
use crate::segment::{
    Access, Address, AnonymousSegment, Binding, Found, Kind, SegmentPair, Whole, patience,
};

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
    /// The description of the private file on which a participant has its lock; `None` where there is
    /// no second one to be had.
    locks: Option<Unforked>,
}

/// What keeps the memory.
#[derive(Debug)]
enum Backing {
    /// Two memory files, for a participant.
    Anonymous(SegmentPair<PublicHeader>),
    /// The public one of them, for a process that only reads.
    Public(AnonymousSegment<PublicHeader>),
    Named(Whole<StoreHeader>),
    /// A file with a name that is only looked at.
    ReadOnly(Binding),
}

impl StoreSegment {
    /// Creates an empty store in two sealed memory files: space reserved, pages populated.
    ///
    /// # Errors
    /// [`StoreMeasures`](SegmentError::StoreMeasures) for what no store can have,
    /// [`NoSpace`](SegmentError::NoSpace) where the memory is not to be had,
    /// [`Os`](SegmentError::Os) otherwise. Nothing is kept.
    pub fn anonymous(options: &StoreOptions) -> Result<Self, SegmentError> {
        let header = PublicHeader(options.header()?);
        let private_bytes = header.0.geometry.private_bytes();
        let fill = |memory: &MappedMemory, header: &PublicHeader| {
            fill(memory, &header.0, options, &header.encode()?, [0; 3])
        };
        Ok(Self::of_pair(SegmentPair::make(&header, private_bytes, fill)?))
    }

    /// Attaches a store in two memory files that somebody else made, for writing.
    ///
    /// # Errors
    /// [`NameError::NotOurs`] where a file is not this user's, or others may write it;
    /// [`PidNamespace`](SegmentError::PidNamespace) where it was made in another pid namespace;
    /// [`NotItsPrivatePart`](SegmentError::NotItsPrivatePart) where the files do not belong together;
    /// [`NotMemory`](SegmentError::NotMemory), [`Unsealed`](SegmentError::Unsealed),
    /// [`TooSmall`](SegmentError::TooSmall) or [`Incompatible`](SegmentError::Incompatible) where a
    /// descriptor is not what it should be; otherwise as [`anonymous`](Self::anonymous). The descriptors
    /// are closed.
    pub fn attach(descriptors: StoreDescriptors) -> Result<Self, SegmentError> {
        let StoreDescriptors { public, private } = descriptors;
        // Before anything is asked that a file system in user space would have to answer.
        let [public, private] = memfd::check_kinds([public, private])?;
        let files = [trusted(public.0, "memory file")?, trusted(private.0, "private memory file")?];
        let check_private =
            |header: &PublicHeader, bytes, len_bytes| header.0.check_private(bytes, len_bytes);
        let segment = Self::of_pair(SegmentPair::attach(files, decode, check_private)?);
        usage::check_namespace(&segment.memory)?;
        Ok(segment)
    }

    /// Attaches the public part of a store, to be read by copying: whosever it is, nothing there needs to be
    /// believed. Nothing else of the store is mapped.
    ///
    /// # Errors
    /// As [`attach`](Self::attach), but for the first three.
    pub fn attach_read_only(fd: OwnedFd) -> Result<Self, SegmentError> {
        let segment = AnonymousSegment::map(fd, false, decode)?;
        let (memory, header) = (segment.memory().clone(), segment.geometry().0);
        Ok(Self { memory, header, backing: Backing::Public(segment), locks: None })
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

    fn of_pair(segment: SegmentPair<PublicHeader>) -> Self {
        let (memory, header) = (segment.memory().clone(), segment.geometry().0);
        // Where it fails, the pidfd decides about this process's death.
        let locks = memfd::reopen(segment.private().as_fd(), true).ok();
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
            (Backing::Anonymous(segment), None) => {
                Some(LockFile { fd: segment.private().as_fd(), is_own: false })
            }
            (Backing::Public(_) | Backing::ReadOnly(_), _) => None,
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
            Backing::Anonymous(_) | Backing::Public(_) => true,
            Backing::Named(segment) => segment.is_current(),
            Backing::ReadOnly(binding) => binding.is_current(),
        }
    }

    /// Descriptors with which a store without a name can be attached for writing.
    pub(super) fn descriptors(&self) -> Result<StoreDescriptors, SegmentError> {
        match &self.backing {
            Backing::Anonymous(pair) => {
                let [public, private] = pair.descriptors()?;
                Ok(StoreDescriptors { public, private })
            }
            Backing::Public(_) => {
                let found = "the public part of a store alone, mapped for reading".into();
                Err(SegmentError::NotMemory { found })
            }
            Backing::Named(_) | Backing::ReadOnly(_) => Err(named()),
        }
    }

    /// A descriptor of the public part of a store without a name, for reading.
    pub(super) fn descriptor_read_only(&self) -> Result<OwnedFd, SegmentError> {
        match &self.backing {
            Backing::Anonymous(pair) => pair.descriptor_read_only(),
            // The one that was handed over may be open for writing.
            Backing::Public(segment) => {
                memfd::reopen(segment.as_fd(), false).map_err(os("open(/proc/self/fd)"))
            }
            Backing::Named(_) | Backing::ReadOnly(_) => Err(named()),
        }
    }

    /// Forbids every later writable mapping of a store without a name.
    pub(super) fn seal_writes(&self) -> Result<(), SegmentError> {
        match &self.backing {
            Backing::Anonymous(pair) => pair.seal_writes(),
            Backing::Public(segment) => segment.seal_writes(),
            Backing::Named(_) | Backing::ReadOnly(_) => Err(named()),
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
) -> Result<PublicHeader, SegmentError> {
    PublicHeader::decode(bytes, len_bytes, 1)
}

/// A memory file that this user alone can open: whoever could write it can do anything to this process.
fn trusted(file: File, what: &'static str) -> Result<OwnedFd, SegmentError> {
    let found = file.metadata().map_err(os("fstat"))?;
    TRUSTED.check(&what, &found)?;
    Ok(file.into())
}

fn named() -> SegmentError {
    SegmentError::NotMemory { found: "a store with a name".into() }
}

/// A description that belongs to one participant alone.
fn own(file: &File) -> LockFile<'_> {
    LockFile { fd: file.as_fd(), is_own: true }
}

/// Makes an empty store of memory that is all zeros, both parts of it. `encoded` is the header of the file that the
/// public part lies in; `file` are its device, inode and time of birth, where it has a name.
pub(super) fn fill(
    memory: &MappedMemory,
    header: &StoreHeader,
    options: &StoreOptions,
    encoded: &[u8],
    file: [u64; 3],
) -> Result<(), SegmentError> {
    memory.copy_in(0, encoded);
    memory.copy_in(header.geometry.private(), &header.to_private_header());
    let StoreHeader { geometry, .. } = *header;
    shared::make_lock(memory, &geometry).map_err(os("pthread_mutex_init"))?;
    let core = Core::new(memory.clone(), geometry);
    core.format_for(options.expected_keys).map_err(|refusal| match refusal {
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
        let theirs = StoreSegment::attach(ours.descriptors().unwrap()).unwrap();
        assert_eq!(ours.geometry(), theirs.geometry());
        assert_eq!(ours.incarnation(), theirs.incarnation());
        core(&ours).set(b"motd", b"hello").unwrap();
        let reader =
            Reader::claim(theirs.memory().clone(), *theirs.geometry(), Owner::new(1, 1)).unwrap();
        assert_eq!(reader.get(b"motd").unwrap().unwrap().to_vec(), b"hello");
        core(&theirs).set(b"motd", b"good-bye").unwrap();
        core(&ours).check().unwrap();

        let looks_on = ours.descriptor_read_only().unwrap();
        let private = ours.descriptors().unwrap().private;
        assert!(matches!(
            StoreSegment::attach(StoreDescriptors {
                public: looks_on.try_clone().unwrap(),
                private
            }),
            Err(SegmentError::Os { call: "mmap", .. })
        ));
        let looks_on = StoreSegment::attach_read_only(looks_on).unwrap();
        assert!(!looks_on.memory().is_writable());
    }

    #[test]
    fn f16_what_is_no_store_or_could_be_written_by_others_is_refused() {
        let ours = StoreSegment::anonymous(&options()).unwrap();
        let readable = |file: &OwnedFd| {
            let file = File::from(file.try_clone().unwrap());
            file.set_permissions(PermissionsExt::from_mode(0o620)).unwrap();
            let refused = StoreSegment::attach(ours.descriptors().unwrap());
            assert!(
                matches!(refused, Err(SegmentError::Name(NameError::NotOurs { .. }))),
                "{refused:?}"
            );
            file
        };
        let StoreDescriptors { public, private } = ours.descriptors().unwrap();
        let file = readable(&private);
        file.set_permissions(PermissionsExt::from_mode(0o600)).unwrap();
        let file = readable(&public);
        // Who only copies what he has checked need not care.
        StoreSegment::attach_read_only(file.into()).unwrap();

        let channel =
            crate::channel::Channel::anonymous(&crate::channel::ChannelOptions::default()).unwrap();
        let public = channel.descriptor().unwrap();
        let refused = StoreSegment::attach(StoreDescriptors { public, private });
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
        let own = ours.memory().load_u64(PID_NAMESPACE, Ordering::Relaxed);
        assert_ne!(own, 0);
        ours.memory().store_u64(PID_NAMESPACE, own + 1, Ordering::Relaxed);
        let refused = StoreSegment::attach(ours.descriptors().unwrap());
        assert!(matches!(refused, Err(SegmentError::PidNamespace { found, expected })
            if (found, expected) == (own + 1, own)));
        StoreSegment::attach_read_only(ours.descriptor_read_only().unwrap()).unwrap();
    }

    #[test]
    fn f48_files_that_do_not_belong_together_are_refused() {
        let [ours, other] = [(); 2].map(|()| StoreSegment::anonymous(&options()).unwrap());
        let all = || (ours.descriptors().unwrap(), other.descriptors().unwrap());
        let said =
            |public, private| match StoreSegment::attach(StoreDescriptors { public, private })
                .unwrap_err()
            {
                error @ SegmentError::NotItsPrivatePart { .. } => error.to_string(),
                error => panic!("{error}"),
            };
        let (own, others) = all();
        let found = said(own.public, others.private);
        assert!(found.contains(&format!("{:#034x}", other.incarnation())), "{found}");
        assert!(found.contains(&format!("{:#034x}", ours.incarnation())), "{found}");
        // Who has the public file alone.
        let (own, others) = all();
        let found = said(own.public.try_clone().unwrap(), own.public);
        assert!(found.contains("is the public part of a store"), "{found}");
        assert!(found.contains("take both descriptors from one call"), "{found}");
        let channel =
            crate::channel::Channel::anonymous(&crate::channel::ChannelOptions::default()).unwrap();
        let found = said(others.public, channel.descriptor().unwrap());
        assert!(found.contains("is a channel"), "{found}");
        // The wrong way round.
        let (StoreDescriptors { public, private }, _) = all();
        let swapped = StoreDescriptors { public: private, private: public };
        let refused = StoreSegment::attach(swapped).unwrap_err();
        assert!(matches!(refused, SegmentError::Incompatible { field: "kind", found: 3, .. }));
        StoreSegment::attach(all().0).unwrap();
    }

    #[test]
    fn f48_a_read_only_descriptor_ends_where_the_private_part_begins() {
        let ours = StoreSegment::anonymous(&options()).unwrap();
        let theirs = StoreSegment::attach_read_only(ours.descriptor_read_only().unwrap()).unwrap();
        let geometry = *theirs.geometry();
        let file = File::from(ours.descriptor_read_only().unwrap());
        assert_eq!(file.metadata().unwrap().len(), geometry.private());
        assert_eq!(theirs.memory().len_bytes(), geometry.private());
        assert_eq!(ours.memory().len_bytes(), geometry.len_bytes());
        for offset in [geometry.lock(), geometry.participants().first, geometry.reader(0)] {
            assert!(offset >= geometry.private());
        }
        let private = File::from(ours.descriptors().unwrap().private);
        assert_eq!(private.metadata().unwrap().len(), geometry.private_bytes());
        assert!(theirs.descriptors().is_err() && theirs.lock_file().is_none());
        let again = File::from(theirs.descriptor_read_only().unwrap());
        assert_eq!(again.metadata().unwrap().len(), geometry.private());
    }
}
