//! Two sealed memory files that make one memory: everybody may map the first, participants alone the second.
//!
//! A store without a name lies in a pair. A process that only reads gets the first file, and attaches it as an
//! [`AnonymousSegment`](super::AnonymousSegment).
//!
//! Invariants:
//! - The second file's memory lies right behind the first one's, in one mapping.
//! - Both files have the header of one creator: their incarnations are equal.
//! - No descriptor of the second file leaves this module but by [`SegmentPair::descriptors`].

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::anonymous::{register, seal_writes};
use super::words::{HEADER_BYTES, Kind};
use crate::error::SegmentError;
use crate::memory::MappedMemory;
use crate::os::mapping::Mapping;
use crate::os::memfd::{self, SealedMemory};
use crate::os::{os, random};

/// See the module. `G` is what the first file's header says.
#[derive(Debug)]
pub(crate) struct SegmentPair<G> {
    public: File,
    private: File,
    /// A description of the first file for reading only, where one was opened in time.
    reader: Option<OwnedFd>,
    memory: MappedMemory,
    geometry: G,
}

impl<G: Kind> SegmentPair<G> {
    /// A new pair, of zeros but for what `fill` writes, both headers among it.
    pub(crate) fn make(
        geometry: &G,
        private_bytes: u64,
        fill: impl FnOnce(&MappedMemory, &G) -> Result<(), SegmentError>,
    ) -> Result<Self, SegmentError> {
        let incarnation = random::random_u128().map_err(os("getrandom"))?;
        let geometry = geometry.with_incarnation(incarnation);
        let public_bytes = geometry.len_bytes()?;
        let (public, private) = (memfd::create(public_bytes)?, memfd::create(private_bytes)?);
        let pair = Self::mapped([public, private], [public_bytes, private_bytes], geometry)?;
        fill(&pair.memory, &pair.geometry)?;
        for file in [&pair.public, &pair.private] {
            memfd::add_seals(file.as_fd(), memfd::SIZE_SEALS).map_err(os("fcntl(F_ADD_SEALS)"))?;
        }
        // Now: a process that has changed its user cannot open it any more.
        let reader = memfd::reopen(pair.public.as_fd(), false).ok();
        Ok(Self { reader, ..pair })
    }

    /// Maps a pair that somebody else made, once `check` and `check_private` have found the headers in order. They
    /// get a header and the length of its file.
    pub(crate) fn attach(
        files: [OwnedFd; 2],
        check: impl FnOnce([u8; HEADER_BYTES], u64) -> Result<G, SegmentError>,
        check_private: impl FnOnce(&G, [u8; HEADER_BYTES], u64) -> Result<(), SegmentError>,
    ) -> Result<Self, SegmentError> {
        let [public, private] = SealedMemory::check_both(files)?;
        let lengths = [public.len_bytes(), private.len_bytes()];
        let mut bytes = [0; HEADER_BYTES];
        public.read_start(&mut bytes)?;
        let geometry = check(bytes, lengths[0])?;
        private.read_start(&mut bytes)?;
        check_private(&geometry, bytes, lengths[1])?;
        Self::mapped([public.into_file()?, private.into_file()?], lengths, geometry)
    }

    fn mapped(
        [public, private]: [File; 2],
        lengths: [u64; 2],
        geometry: G,
    ) -> Result<Self, SegmentError> {
        let fence_mode = geometry.fence_mode();
        let generation = register(fence_mode)?;
        let mapping = Mapping::read_write_both([&public, &private], lengths)?;
        let memory = MappedMemory::from_mapping(Arc::new(mapping), fence_mode, generation);
        Ok(Self { public, private, reader: None, memory, geometry })
    }

    /// Both files, as one memory.
    pub(crate) fn memory(&self) -> &MappedMemory {
        &self.memory
    }

    /// What was agreed when the pair was created or attached.
    pub(crate) fn geometry(&self) -> &G {
        &self.geometry
    }

    /// The second file.
    pub(crate) fn private(&self) -> &File {
        &self.private
    }

    /// New descriptors of both files, closed on exec, for a process that is to attach. They share the open file
    /// descriptions of this pair: nothing in the library relies on these descriptions' locks, flags or positions.
    ///
    /// # Errors
    /// [`SegmentError::Os`], where descriptors have run out.
    pub(crate) fn descriptors(&self) -> Result<[OwnedFd; 2], SegmentError> {
        let dup = |file: &File| file.as_fd().try_clone_to_owned().map_err(os("dup"));
        Ok([dup(&self.public)?, dup(&self.private)?])
    }

    /// A new descriptor of the first file, for a process that is only to read. Another user cannot make more of
    /// it, because the file's mode lets only this one open it.
    ///
    /// # Errors
    /// [`SegmentError::Os`], where descriptors have run out or `/proc` is missing.
    pub(crate) fn descriptor_read_only(&self) -> Result<OwnedFd, SegmentError> {
        if let Some(reader) = &self.reader {
            return reader.try_clone().map_err(os("dup"));
        }
        memfd::reopen(self.public.as_fd(), false).map_err(os("open(/proc/self/fd)"))
    }

    /// Forbids every later writable mapping of either file, write or hole, in any process, and fills the holes
    /// there are.
    ///
    /// # Errors
    /// [`SegmentError::Os`] where somebody has forbidden sealing; [`SegmentError::NoSpace`] where there is no
    /// memory to fill the holes.
    pub(crate) fn seal_writes(&self) -> Result<(), SegmentError> {
        // Both or none: the second needs no more rights than the first.
        seal_writes(&self.private)?;
        seal_writes(&self.public)?;
        self.memory.mapping().populate()
    }
}
