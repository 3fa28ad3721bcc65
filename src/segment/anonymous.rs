//! Segments without a name: sealed memory files, passed by descriptor and gone with their last
//! user.
//!
//! The host creates one for each channel of a plugin, and the plugin attaches it. Who reads a store without a
//! name by copying maps one.
//! What always holds: a peer cannot make the memory behind a segment go away, neither by cutting
//! the file nor, once both have mapped it and [`AnonymousSegment::seal_writes`] has succeeded, by
//! punching holes.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::header::{self, ChannelGeometry};
use super::words::{HEADER_BYTES, Kind};
use crate::error::SegmentError;
use crate::layout::segment;
use crate::memory::{FenceMode, MappedMemory};
use crate::os::mapping::Mapping;
use crate::os::memfd::{self, SealedMemory};
use crate::os::{fork, membarrier, os, random};

/// A segment in a sealed memory file, mapped by this process: a channel's, unless it says otherwise.
#[derive(Debug)]
pub struct AnonymousSegment<G = ChannelGeometry> {
    file: File,
    memory: MappedMemory,
    geometry: G,
}

impl AnonymousSegment {
    /// Creates a segment of zeros with a header: space reserved, pages populated, its length
    /// sealed.
    ///
    /// # Errors
    /// [`Capacity`](SegmentError::Capacity) and [`Alignment`](SegmentError::Alignment) for what no
    /// channel can have, [`NoSpace`](SegmentError::NoSpace) where the memory is not to be had,
    /// [`Membarrier`](SegmentError::Membarrier) where the fences asked for are not;
    /// [`Os`](SegmentError::Os) otherwise. Nothing is kept.
    pub fn create(geometry: &ChannelGeometry) -> Result<Self, SegmentError> {
        Self::create_for(geometry, segment::WAKEUP_FUTEX)
    }

    /// A new segment in which sleepers wait on events.
    ///
    /// # Safety
    /// Every process that can write the segment, now and later, follows the protocol.
    #[cfg(feature = "raw-sync-event")]
    #[allow(unsafe_code)]
    pub(crate) unsafe fn create_with_event(
        geometry: &ChannelGeometry,
    ) -> Result<Self, SegmentError> {
        let segment = Self::create_for(geometry, segment::WAKEUP_EVENT)?;
        // SAFETY: a whole segment, just created and mapped for writing, whose descriptor nobody else
        // has; the rest is the caller's promise.
        let memory = unsafe { segment.memory.with_events(true)? };
        Ok(Self { memory, ..segment })
    }

    fn create_for(geometry: &ChannelGeometry, wakeup: u32) -> Result<Self, SegmentError> {
        Self::make(geometry, |memory, geometry| header::write_for(memory, geometry, wakeup))
    }

    /// Attaches a segment that somebody else created, once everything about it has been checked.
    /// The segment's pages are populated, so that attaching costs its creator's choice of memory at
    /// most.
    ///
    /// # Errors
    /// [`NotMemory`](SegmentError::NotMemory), [`Unsealed`](SegmentError::Unsealed),
    /// [`TooSmall`](SegmentError::TooSmall) or [`Incompatible`](SegmentError::Incompatible) where the
    /// descriptor is not what it should be; otherwise as [`create`](Self::create). The descriptor
    /// is closed: on a thread of its own where it is no memory file, because closing that may wait
    /// for its maker.
    pub fn attach(fd: OwnedFd) -> Result<Self, SegmentError> {
        Self::open(fd, true, segment::WAKEUP_FUTEX)
    }

    /// Attaches a segment in which sleepers wait on events.
    ///
    /// # Safety
    /// Every process that could ever write the segment follows the protocol, its creator too, and
    /// uses the same C library.
    #[cfg(feature = "raw-sync-event")]
    #[allow(unsafe_code)]
    pub(crate) unsafe fn attach_with_event(fd: OwnedFd) -> Result<Self, SegmentError> {
        let segment = Self::open(fd, true, segment::WAKEUP_EVENT)?;
        // SAFETY: a whole segment, mapped for writing, whose header says that its creator has made
        // events; the rest is the caller's promise.
        let memory = unsafe { segment.memory.with_events(false)? };
        Ok(Self { memory, ..segment })
    }

    /// Maps a segment for reading only, as tools do. Its geometry is checked as in
    /// [`attach`](Self::attach); works after the seal against writing as well.
    ///
    /// # Errors
    /// As [`attach`](Self::attach).
    pub fn inspect(fd: OwnedFd) -> Result<Self, SegmentError> {
        Self::open(fd, false, segment::WAKEUP_FUTEX)
    }

    fn open(fd: OwnedFd, writable: bool, wakeup: u32) -> Result<Self, SegmentError> {
        Self::map(fd, writable, |bytes, len_bytes| header::check_for(bytes, len_bytes, wakeup))
    }
}

impl<G: Kind> AnonymousSegment<G> {
    /// A new segment, of zeros but for what `fill` writes, the header among it.
    pub(crate) fn make(
        geometry: &G,
        fill: impl FnOnce(&MappedMemory, &G) -> Result<(), SegmentError>,
    ) -> Result<Self, SegmentError> {
        let incarnation = random::random_u128().map_err(os("getrandom"))?;
        let geometry = geometry.with_incarnation(incarnation);
        let fence_mode = geometry.fence_mode();
        let len_bytes = geometry.len_bytes()?;
        let generation = register(fence_mode)?;
        let file = memfd::create(len_bytes)?;
        let mapping = Mapping::read_write(&file, len_bytes)?;
        let memory = MappedMemory::from_mapping(Arc::new(mapping), fence_mode, generation);
        fill(&memory, &geometry)?;
        memfd::add_seals(file.as_fd(), memfd::SIZE_SEALS).map_err(os("fcntl(F_ADD_SEALS)"))?;
        Ok(Self { file, memory, geometry })
    }

    /// Maps a segment that somebody else made, once `check` has found its header in order.
    pub(crate) fn map(
        fd: OwnedFd,
        writable: bool,
        check: impl FnOnce([u8; HEADER_BYTES], u64) -> Result<G, SegmentError>,
    ) -> Result<Self, SegmentError> {
        let sealed = SealedMemory::check(fd)?;
        let mut bytes = [0; HEADER_BYTES];
        sealed.read_start(&mut bytes)?;
        let len_bytes = sealed.len_bytes();
        let geometry = check(bytes, len_bytes)?;
        let fence_mode = geometry.fence_mode();
        let file = sealed.into_file()?;
        let (generation, mapping) = if writable {
            (register(fence_mode)?, Mapping::read_write(&file, len_bytes)?)
        } else {
            // Who only reads never fences.
            (register(FenceMode::Real)?, Mapping::read_only(&file, len_bytes)?)
        };
        let memory = MappedMemory::from_mapping(Arc::new(mapping), fence_mode, generation);
        Ok(Self { file, memory, geometry })
    }

    /// The mapped memory.
    pub fn memory(&self) -> &MappedMemory {
        &self.memory
    }

    /// What was agreed when the segment was created or attached.
    pub fn geometry(&self) -> &G {
        &self.geometry
    }

    /// A new descriptor of the same memory, closed on exec, for the process that is to attach. It shares
    /// its open file description with this one: nothing in the library relies on that description's
    /// locks, flags or position, and a process that has changed its user could not open another.
    ///
    /// # Errors
    /// [`SegmentError::Os`], where descriptors have run out.
    pub fn descriptor(&self) -> Result<OwnedFd, SegmentError> {
        self.file.as_fd().try_clone_to_owned().map_err(os("dup"))
    }

    /// Ends the time in which the peer could punch holes: forbids every later writable mapping,
    /// write or hole, in any process, and fills the holes there are. Call it when both sides have
    /// mapped the segment; until then, a hole is zeros that the peer could have written as well.
    ///
    /// # Errors
    /// [`SegmentError::Os`] where the peer has forbidden sealing: poison the channel.
    /// [`SegmentError::NoSpace`] where there is no memory to fill the holes.
    pub fn seal_writes(&self) -> Result<(), SegmentError> {
        seal_writes(&self.file)?;
        self.memory.mapping().populate()
    }

    /// Gives the segment's memory back, whoever has a descriptor or a mapping of it. For one that has
    /// not been sealed and is not to be used.
    pub(crate) fn discard(&self) -> Result<(), SegmentError> {
        let len_bytes = self.geometry.len_bytes()?;
        memfd::discard(self.file.as_fd(), len_bytes).map_err(os("fallocate"))
    }

    /// Keeps the segment from being swapped out.
    ///
    /// # Errors
    /// [`SegmentError::Os`], where the process may not lock as much memory.
    pub fn lock_in_memory(&self) -> Result<(), SegmentError> {
        self.memory.mapping().lock().map_err(os("mlock"))
    }
}

impl<G> AsFd for AnonymousSegment<G> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Forbids every later writable mapping, write or hole, in any process.
pub(super) fn seal_writes(file: &File) -> Result<(), SegmentError> {
    let wanted = memfd::WRITE_SEAL | memfd::SEAL_SEAL;
    if let Err(error) = memfd::add_seals(file.as_fd(), wanted) {
        // Somebody, we ourselves perhaps, may have sealed it before: that is as good.
        let seals = memfd::seals(file.as_fd()).map_err(os("fcntl(F_GET_SEALS)"))?;
        if seals & memfd::WRITE_SEAL == 0 {
            return Err(os("fcntl(F_ADD_SEALS)")(error));
        }
    }
    Ok(())
}

/// Makes this process one that the fences of the segment reach; returns its fork generation.
pub(super) fn register(fence_mode: FenceMode) -> Result<u64, SegmentError> {
    let generation = fork::generation().map_err(os("mmap"))?;
    if fence_mode == FenceMode::Asymmetric {
        membarrier::register(generation).map_err(|source| SegmentError::Membarrier { source })?;
    }
    Ok(generation)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::CHANNEL_DATA;
    use crate::memory::{Memory, Ordering};

    #[test]
    fn what_one_side_stores_the_other_loads() {
        for fence_mode in [FenceMode::Real, FenceMode::detect()] {
            let ours = {
                let plain = ChannelGeometry::records([4096, 64], 8, fence_mode);
                let typed = ChannelGeometry { type_fingerprint: 7, ..plain };
                AnonymousSegment::create(&typed).unwrap()
            };
            let theirs = AnonymousSegment::attach(ours.descriptor().unwrap()).unwrap();
            assert_eq!(ours.geometry(), theirs.geometry());
            assert_eq!(theirs.memory().fence_mode(), fence_mode);
            assert_eq!(theirs.geometry().type_fingerprint, 7);
            ours.memory().store_u64(CHANNEL_DATA, 42, Ordering::Release);
            assert_eq!(theirs.memory().load_u64(CHANNEL_DATA, Ordering::Acquire), 42);
        }
    }

    #[test]
    fn a_tool_may_look_and_not_write() {
        let ours = AnonymousSegment::create(&ChannelGeometry::records([64; 2], 8, FenceMode::Real))
            .unwrap();
        ours.seal_writes().unwrap();
        let tool = AnonymousSegment::inspect(ours.descriptor().unwrap()).unwrap();
        ours.memory().store_u64(CHANNEL_DATA, 42, Ordering::Relaxed);
        assert_eq!(tool.memory().load_u64(CHANNEL_DATA, Ordering::Relaxed), 42);
        assert!(!tool.memory().is_writable());
        let memory = tool.memory().clone();
        let store = move || memory.store_u64(CHANNEL_DATA, 1, Ordering::Relaxed);
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(store)).is_err());
    }
}
