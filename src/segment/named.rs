//! Segments with a name: found, checked, mapped.
//!
//! `channel::open` and `store::open` decide with it who uses which segment.
//!
//! Invariants: what is mapped was checked first, and is private to this user or as open as the caller
//! allowed. Decisions about a segment are made under its [`Gate`].

use std::io;
use std::ops::Deref;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::address::{Access, Address, check_regular};
use super::anonymous::register;
use super::binding::Binding;
use super::claim::Claim;
use super::draft::Draft;
use super::gate::Gate;
use super::header::ChannelGeometry;
use super::sides::{self, SideLine};
use super::words::{HEADER_BYTES, Header, Kind};
use crate::error::{NameError, SegmentError};
use crate::identity::closed::Times;
use crate::identity::process::ProcessId;
use crate::layout::{MAGIC, segment, side};
use crate::memory::{Deadline, FenceMode, MappedMemory};
use crate::os::boot;
use crate::os::clock::monotonic_ns;
use crate::os::mapping::Mapping;
use crate::os::names::{self, FileId};
use crate::os::os;

/// A segment with a name, mapped, and the locks that this process has on it.
#[derive(Debug)]
pub(crate) struct Whole<G> {
    pub(super) memory: MappedMemory,
    pub(super) geometry: G,
    pub(super) claim: Claim,
    /// Whether the bytes may have to last longer than the machine's uptime.
    pub(super) is_file: bool,
    pub(super) binding: Binding,
}

impl<G> Whole<G> {
    pub(crate) fn memory(&self) -> &MappedMemory {
        &self.memory
    }

    pub(crate) fn geometry(&self) -> &G {
        &self.geometry
    }

    /// The locks.
    pub(crate) fn claim(&self) -> &Claim {
        &self.claim
    }

    /// Gets what was written to where it outlives the machine's uptime, where that may be wanted:
    /// before the segment says that it was closed cleanly.
    pub(crate) fn sync(&self) -> io::Result<()> {
        if self.is_file { self.claim.file().sync_data() } else { Ok(()) }
    }

    /// Whether its name still means it.
    pub(crate) fn is_current(&self) -> bool {
        self.binding.is_current()
    }

    /// Gives the locks back, after everything that says who had them has been changed.
    pub(crate) fn release(&self) {
        self.claim.release();
    }
}

/// A side of a channel in a named segment, which this process has.
#[derive(Debug)]
pub(crate) struct NamedSegment {
    whole: Whole<ChannelGeometry>,
    side: usize,
}

impl NamedSegment {
    /// The segment, of which this process has taken a side.
    pub(crate) fn new(whole: Whole<ChannelGeometry>, side: usize) -> Self {
        Self { whole, side }
    }

    /// Which side this process has.
    pub(crate) fn side(&self) -> usize {
        self.side
    }

    /// Gives a side back whose ends were never made.
    pub(crate) fn leave(&self) {
        sides::leave(&self.memory, self.side);
        self.release();
    }
}

impl Deref for NamedSegment {
    type Target = Whole<ChannelGeometry>;

    fn deref(&self) -> &Self::Target {
        &self.whole
    }
}

/// Between two questions about a lock that a look holds.
const FIRST_PAUSE: Duration = Duration::from_micros(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(2);

/// Of this process's user, whatever its mode.
const OWN: Access = Access { mode: 0o777, owner: None };

/// A file that has the name of a segment.
#[derive(Debug)]
pub(crate) struct Found {
    pub(super) address: Address,
    pub(super) path: PathBuf,
    pub(super) id: FileId,
    pub(super) claim: Claim,
    len_bytes: u64,
    /// When it was changed last, before this process has mapped it.
    times: Times,
    /// Found out before the gate is entered.
    pub(super) own: SideLine,
}

impl Found {
    /// Opens what has this name, if it is a file that the caller allows.
    pub(crate) fn open(address: &Address, access: &Access) -> Result<Self, SegmentError> {
        Self::open_as(address, Some(access))
    }

    /// Opens it for reading, whosever it is.
    pub(crate) fn open_to_inspect(address: &Address) -> Result<Self, SegmentError> {
        Self::open_as(address, None)
    }

    fn open_as(address: &Address, access: Option<&Access>) -> Result<Self, SegmentError> {
        let path = address.path()?;
        let file = names::open(&path, access.is_some()).map_err(|error| refused(address, error))?;
        let found = file.metadata().map_err(os("fstat"))?;
        match access {
            // It holds nothing, and is never opened: only its owner matters.
            Some(access) if found.len() == 0 => {
                Access { mode: 0o777, ..*access }.check(address, &found)?;
            }
            Some(access) => access.check(address, &found)?,
            None => check_regular(address, &found)?,
        }
        let id = FileId::from(&found);
        let (address, claim) = (address.clone(), Claim::new(file)?);
        Ok(Self {
            address,
            path,
            id,
            claim,
            len_bytes: found.len(),
            times: Times::from(&found),
            own: own_line(),
        })
    }

    /// Reads and checks the header without mapping anything.
    pub(crate) fn geometry<G: Kind>(&self) -> Result<G, SegmentError> {
        let stale = |found| {
            let address = self.address.to_string();
            Err(NameError::Stale { address, found }.into())
        };
        if self.len_bytes == 0 {
            return stale("an empty file");
        }
        let mut bytes = [0; HEADER_BYTES];
        match self.claim.file().read_exact_at(&mut bytes, 0) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return stale("a file that is shorter than a header");
            }
            Err(error) => return Err(os("pread")(error)),
        }
        if bytes == [0; HEADER_BYTES] {
            return stale("a file without a header");
        }
        let page_bytes = names::page_bytes(self.claim.file()).map_err(os("fstatfs"))?;
        G::decode(bytes, self.len_bytes, page_bytes)
    }

    /// Whether it holds nothing at all: it is empty, or zeros from end to end.
    pub(crate) fn is_blank(&self) -> Result<bool, SegmentError> {
        let is_zero = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
        let start = self.len_bytes.min(HEADER_BYTES as u64) as usize;
        let mut bytes = vec![0; start];
        self.claim.file().read_exact_at(&mut bytes, 0).map_err(os("pread"))?;
        if !is_zero(&bytes) {
            return Ok(false);
        }
        bytes.resize(1 << 16, 0);
        let mut at = 0;
        while let Some(data) = names::next_data(self.claim.file(), at).map_err(os("lseek"))? {
            let read = self.claim.file().read_at(&mut bytes, data).map_err(os("pread"))?;
            if !is_zero(&bytes[..read]) {
                return Ok(false);
            }
            if read == 0 {
                break;
            }
            at = data + read as u64;
        }
        Ok(true)
    }

    /// Whether this is, or was, a segment: what may be replaced without loss by one of this kind.
    pub(crate) fn is_replaceable(&self, kind: u32) -> Result<bool, SegmentError> {
        if let Some(bytes) = self.bytes_at(0) {
            match Header::check(bytes, kind) {
                Ok(_) => return Ok(true),
                // Whole, and something else.
                Err(error @ SegmentError::Incompatible { field: "kind", .. }) => return Err(error),
                Err(_) => {}
            }
        }
        Ok(self.is_name() || self.has_magic() || self.is_blank()?)
    }

    /// Whether the file begins as a segment does.
    pub(crate) fn has_magic(&self) -> bool {
        self.u64_at(segment::MAGIC) == MAGIC
    }

    /// Whether it lies in the directory of shared memory, which has no other files of such names.
    pub(crate) fn is_name(&self) -> bool {
        matches!(self.address, Address::Name(_))
    }

    /// Which file it is.
    pub(crate) fn id(&self) -> FileId {
        self.id
    }

    /// Maps it; `None` where the name means another file meanwhile.
    pub(crate) fn map(&self, fence_mode: FenceMode) -> Result<Option<MappedMemory>, SegmentError> {
        // Through a description of its own: see `claim`.
        match names::open(&self.path, true) {
            Ok(file) if FileId::of(&file).map_err(os("fstat"))? == self.id => {
                let mapping = Mapping::read_write(&file, self.len_bytes)?;
                let generation = register(fence_mode)?;
                Ok(Some(MappedMemory::from_mapping(Arc::new(mapping), fence_mode, generation)))
            }
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(refused(&self.address, error)),
        }
    }

    /// Maps it for reading only, as tools do, if it belongs to this user. `None` where the name
    /// means another file meanwhile, or none.
    pub(crate) fn inspect(
        &self,
        fence_mode: FenceMode,
    ) -> Result<Option<MappedMemory>, SegmentError> {
        let file = match names::open(&self.path, false) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(refused(&self.address, error)),
        };
        let found = file.metadata().map_err(os("fstat"))?;
        if FileId::from(&found) != self.id {
            return Ok(None);
        }
        // Another owner can cut the file while we look; touching what was cut off is SIGBUS.
        OWN.check(&self.address, &found)?;
        let mapping = Mapping::read_only(&file, self.len_bytes)?;
        let generation = register(FenceMode::Real)?;
        Ok(Some(MappedMemory::from_mapping(Arc::new(mapping), fence_mode, generation)))
    }

    /// Enters the gate; `None` where the name means another file meanwhile.
    pub(crate) fn gate(&self, deadline: Deadline) -> Result<Option<Gate<'_>>, SegmentError> {
        if !self.claim.enter(deadline)? {
            return Err(NameError::Busy { address: self.address.to_string() }.into());
        }
        let gate = Gate::new(self);
        Ok(gate.is_named()?.then_some(gate))
    }

    /// Whether somebody else uses the side, asked without the gate. Waits while a process that only
    /// looks holds the lock, and counts a lock that is still undecided at the deadline as a use.
    pub(crate) fn is_used(&self, side: usize, deadline: Deadline) -> Result<bool, SegmentError> {
        let mut pause = FIRST_PAUSE;
        loop {
            let used = self.claim.is_used(side).map_err(os("fcntl(F_OFD_GETLK)"))?;
            match used {
                Some(used) => return Ok(used),
                None if monotonic_ns() >= deadline.as_ns() => return Ok(true),
                None => thread::sleep(pause),
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    pub(crate) fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// When it was changed last: before this process has mapped it, which counts as a change, and now, where
    /// another one has closed it since.
    pub(crate) fn times(&self) -> [Times; 2] {
        let now = self.claim.file().metadata();
        [self.times, now.map_or(self.times, |found| Times::from(&found))]
    }

    /// The process that seems to have a side; 0 where it cannot be read.
    pub(crate) fn pid_of(&self, side: usize) -> u32 {
        self.u32_at(side::LINE[side] + side::PID)
    }

    /// A word of the file, which may be a lie; 0 where it cannot be read.
    pub(crate) fn u32_at(&self, offset: u64) -> u32 {
        u32::from_ne_bytes(self.bytes_at(offset).unwrap_or([0; 4]))
    }

    /// As [`u32_at`](Self::u32_at).
    pub(crate) fn u64_at(&self, offset: u64) -> u64 {
        u64::from_ne_bytes(self.bytes_at(offset).unwrap_or([0; 8]))
    }

    fn bytes_at<const N: usize>(&self, offset: u64) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.claim.file().read_exact_at(&mut bytes, offset).is_ok().then_some(bytes)
    }

    /// Gives its name to `draft`, if nobody alive has it and it is `still` to be so. `None` where not.
    pub(crate) fn supersede<G: Kind>(
        &self,
        draft: Draft<G>,
        deadline: Deadline,
        still: impl FnOnce() -> Result<bool, SegmentError>,
    ) -> Result<Option<Whole<G>>, SegmentError> {
        let Some(gate) = self.gate(deadline)? else { return Ok(None) };
        if !gate.take_both()? || !still()? {
            return Ok(None);
        }
        draft.replace(&self.path)
    }

    /// As [`Whole::sync`].
    pub(crate) fn sync(&self) -> Result<(), SegmentError> {
        if self.is_name() {
            return Ok(());
        }
        self.claim.file().sync_data().map_err(os("fdatasync"))
    }

    /// The segment, some of whose locks this process has.
    pub(crate) fn into_whole<G>(self, memory: MappedMemory, geometry: G) -> Whole<G> {
        let is_file = matches!(self.address, Address::File(_));
        let binding = self.binding();
        Whole { memory, geometry, claim: self.claim, is_file, binding }
    }

    /// The name that it was found by.
    pub(crate) fn binding(&self) -> Binding {
        Binding::new(&self.path, self.id)
    }
}

/// What this process writes in the line of a side.
pub(crate) fn own_line() -> SideLine {
    let (ProcessId { pid, pid_namespace, pidfd_inode }, boot) = (ProcessId::own(), boot::boot());
    let (state, poisoned, attaches) = (side::ATTACHED, false, 0);
    SideLine { state, poisoned, attaches, pid, pidfd_inode, pid_namespace, boot }
}

/// Why a file could not be opened, linked or removed.
pub(super) fn refused(address: &Address, source: io::Error) -> SegmentError {
    let not_ours = |address: String, found: &str| NameError::NotOurs {
        address,
        found: found.into(),
        expected: "a regular file".into(),
    };
    let name = address.to_string();
    let error = match source.raw_os_error() {
        Some(libc::ENOENT) => NameError::NotFound { address: name },
        Some(libc::ELOOP) => not_ours(name, "a symbolic link"),
        Some(libc::EISDIR) => not_ours(name, "a directory"),
        Some(libc::ENXIO) => not_ours(name, "a socket or device"),
        Some(libc::EACCES | libc::EPERM | libc::EROFS) => {
            NameError::Denied { address: name, source }
        }
        _ => return os("open")(source),
    };
    error.into()
}
