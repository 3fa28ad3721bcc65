//! shm_ring: length and message one after the other in a ring of bytes. It has nothing to sleep on.
//!
//! A row of the spinning tables.
//! What always holds: each direction has memory of its own, whose two indices start as zero.

use std::fmt;
use std::os::fd::OwnedFd;

use ::shm_ring::SZ_OF_USIZE;
use ::shm_ring::ringbuffer_ro::RingbufRo;
use ::shm_ring::ringbuffer_rw::RingbufRw;

use super::poll;
use crate::common::case::Transport;
use crate::common::link::{Bytes, Copied, Spec};
use crate::common::shared::Shared;

/// One end.
pub struct ShmRing {
    // Dropped before the memory that they point into.
    tx: RingbufRw<'static>,
    rx: RingbufRo<'static>,
    _memory: [Shared; 2],
}

impl fmt::Debug for ShmRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShmRing").finish_non_exhaustive()
    }
}

/// Two indices, the messages, a length before each, and the byte that stays free.
fn bytes(spec: &Spec) -> usize {
    2 * SZ_OF_USIZE + spec.capacity + spec.capacity / spec.size * SZ_OF_USIZE + 1
}

impl ShmRing {
    fn new(out: Shared, inbox: Shared, spec: &Spec) -> Self {
        // SAFETY: memory of that many bytes, aligned to a page, which outlives the ring; the other
        // end is a `RingbufRo`. That both refer to the indices at once is how the library works.
        let tx = unsafe { RingbufRw::new(bytes(spec), out.as_mut_ptr()) };
        // SAFETY: as above, the other end being a `RingbufRw`.
        let rx = unsafe { RingbufRo::new(bytes(spec), inbox.as_mut_ptr()) };
        Self { tx, rx, _memory: [out, inbox] }
    }
}

impl Bytes for ShmRing {
    #[inline]
    fn write(&mut self, message: &[u8]) {
        poll(|| (self.tx.push(message) > 0).then_some(()));
    }

    #[inline]
    fn read(&mut self, buffer: &mut [u8]) {
        let len = poll(|| Some(self.rx.pop(buffer)).filter(|len| *len > 0));
        assert_eq!(len, buffer.len(), "not a message of this bench");
    }
}

impl Transport for ShmRing {
    type End = Copied<Self>;

    fn create(spec: &Spec) -> (Self::End, Vec<OwnedFd>) {
        let [there, back] = [(); 2].map(|()| Shared::create(bytes(spec)));
        let fd = |memory: &Shared| memory.fd().try_clone_to_owned().expect("a second descriptor");
        let fds = vec![fd(&there), fd(&back)];
        (Copied::new(Self::new(there, back, spec), spec), fds)
    }

    fn attach(spec: &Spec, fds: Vec<OwnedFd>) -> Self::End {
        let [there, back]: [OwnedFd; 2] = fds.try_into().expect("two descriptors");
        Copied::new(Self::new(Shared::attach(back), Shared::attach(there), spec), spec)
    }
}
