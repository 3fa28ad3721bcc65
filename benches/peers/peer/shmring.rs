//! shmring: a ring of bytes, unframed, which wakes a possible sleeper at every store of an index.
//!
//! Rows: polled, and blocking.
//! What always holds: its writer makes the memory and its reader opens it, so each side makes one.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use ::shmring::backend::ShmStorage;
use ::shmring::{Options, Reader, Writer, create_shm, open_shm};

use super::poll;
use crate::common::case::Transport;
use crate::common::isolated::{far_name, near_name};
use crate::common::link::{Bytes, Copied, Spec};

/// One end; `SLEEPS`: blocks, otherwise polls.
#[derive(Debug)]
pub struct ShmRing<const SLEEPS: bool> {
    tx: Writer<ShmStorage>,
    /// Opened at the first message: the far side has made it by then.
    rx: Option<Reader<ShmStorage>>,
    inbox: String,
    capacity: u64,
}

impl<const SLEEPS: bool> ShmRing<SLEEPS> {
    fn new(name: &str, spec: &Spec, near: bool) -> Self {
        let ways = if near { ["there", "back"] } else { ["back", "there"] };
        let [out, inbox] = ways.map(|way| format!("/{name}{way}"));
        // It takes powers of two only.
        let capacity = spec.capacity.next_power_of_two() as u64;
        let tx = create_shm(&out, capacity, Options::default()).expect("a ring");
        Self { tx, rx: None, inbox, capacity }
    }

    #[inline]
    fn rx(&mut self) -> &mut Reader<ShmStorage> {
        let open = || {
            let deadline = Instant::now() + Duration::from_secs(1);
            loop {
                match open_shm(&self.inbox, self.capacity, Options::default()) {
                    Ok(reader) => return reader,
                    Err(_) if Instant::now() < deadline => std::thread::yield_now(),
                    Err(error) => panic!("the other side's ring: {error}"),
                }
            }
        };
        self.rx.get_or_insert_with(open)
    }
}

impl<const SLEEPS: bool> Bytes for ShmRing<SLEEPS> {
    #[inline]
    fn write(&mut self, message: &[u8]) {
        if SLEEPS {
            self.tx.write_all(message).expect("an open ring");
            return;
        }
        let mut written = 0;
        while written < message.len() {
            let attempt = || self.tx.try_write(&message[written..]).expect("an open ring");
            written += poll_some(attempt);
        }
    }

    #[inline]
    fn read(&mut self, buffer: &mut [u8]) {
        let rx = self.rx();
        if SLEEPS {
            rx.read_exact(buffer).expect("an open ring");
            return;
        }
        let mut read = 0;
        while read < buffer.len() {
            read += poll_some(|| rx.try_read(&mut buffer[read..]).expect("an open ring"));
        }
    }
}

#[inline(always)]
fn poll_some(mut attempt: impl FnMut() -> usize) -> usize {
    poll(|| Some(attempt()).filter(|bytes| *bytes > 0))
}

impl<const SLEEPS: bool> Transport for ShmRing<SLEEPS> {
    type End = Copied<Self>;

    fn create(spec: &Spec) -> (Self::End, Vec<OwnedFd>) {
        (Copied::new(Self::new(&near_name(), spec, true), spec), Vec::new())
    }

    fn attach(spec: &Spec, _fds: Vec<OwnedFd>) -> Self::End {
        Copied::new(Self::new(&far_name(), spec, false), spec)
    }
}
