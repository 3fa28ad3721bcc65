//! ipmpsc: a ring in a mapped file, under a mutex and a condition variable, serialised by bincode.
//!
//! Rows: polled, and blocking.
//! What always holds: messages are borrowed from the ring while they are copied out (its zero-copy
//! context), and the file lies in `/dev/shm`.

use std::fmt;
use std::os::fd::OwnedFd;

use ::ipmpsc::{Receiver, Sender, SharedRingBuffer};
use serde_bytes::Bytes as Serialised;

use super::poll;
use crate::common::case::Transport;
use crate::common::isolated::{far_name, near_name};
use crate::common::link::{Bytes, Copied, Spec};

/// bincode's length and the ring's own, for each message.
const OVERHEAD: usize = 16;

/// One end; `SLEEPS`: blocks while empty, otherwise polls. A sender blocks while full.
pub struct Ipmpsc<const SLEEPS: bool> {
    tx: Sender,
    rx: Receiver,
}

impl<const SLEEPS: bool> fmt::Debug for Ipmpsc<SLEEPS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ipmpsc").finish_non_exhaustive()
    }
}

fn paths(name: &str) -> [String; 2] {
    ["there", "back"].map(|way| format!("/dev/shm/{name}{way}"))
}

impl<const SLEEPS: bool> Bytes for Ipmpsc<SLEEPS> {
    #[inline]
    fn write(&mut self, message: &[u8]) {
        self.tx.send(&Serialised::new(message)).expect("sending");
    }

    #[inline]
    fn read(&mut self, buffer: &mut [u8]) {
        if SLEEPS {
            let mut context = self.rx.zero_copy_context();
            buffer.copy_from_slice(context.recv::<&[u8]>().expect("receiving"));
            return;
        }
        poll(|| {
            let mut context = self.rx.zero_copy_context();
            let message = context.try_recv::<&[u8]>().expect("receiving")?;
            buffer.copy_from_slice(message);
            Some(())
        });
    }
}

impl<const SLEEPS: bool> Transport for Ipmpsc<SLEEPS> {
    type End = Copied<Self>;

    fn create(spec: &Spec) -> (Self::End, Vec<OwnedFd>) {
        let messages = spec.capacity / spec.size;
        let bytes = u32::try_from(spec.capacity + messages * OVERHEAD).expect("below 4 GiB");
        let [there, back] =
            paths(&near_name()).map(|path| SharedRingBuffer::create(&path, bytes).expect("a ring"));
        (Copied::new(Self { tx: Sender::new(there), rx: Receiver::new(back) }, spec), Vec::new())
    }

    fn attach(spec: &Spec, _fds: Vec<OwnedFd>) -> Self::End {
        let [there, back] =
            paths(&far_name()).map(|path| SharedRingBuffer::open(&path).expect("the near ring"));
        Copied::new(Self { tx: Sender::new(back), rx: Receiver::new(there) }, spec)
    }
}
