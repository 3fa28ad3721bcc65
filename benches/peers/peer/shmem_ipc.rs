//! shmem-ipc: a ring of items of a fixed size in sealed memory, with eventfds to sleep on.
//!
//! Rows: polled, through its ring without signals, and blocking, with them.
//! What always holds: an item is a message, so the size is a constant.

use std::fmt;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::ptr;

use ::shmem_ipc::sharedring::{Receiver, Sender};

use super::poll;
use crate::common::case::{Case, Setting, Transport, measure_processes, serve_process};
use crate::common::cli::ChildArgs;
use crate::common::link::{Bytes, Copied, Outcome, Spec};

/// Its row.
pub const fn case<const SLEEPS: bool>(name: &'static str) -> Case {
    Case::processes_by(name, measure::<SLEEPS>, serve::<SLEEPS>)
}

/// Calls a function for the transport of messages of this size.
macro_rules! by_size {
    ($function:ident, $size:expr, $($argument:expr),*) => {
        match $size {
            8 => $function::<ShmemIpc<8, SLEEPS>>($($argument),*),
            64 => $function::<ShmemIpc<64, SLEEPS>>($($argument),*),
            256 => $function::<ShmemIpc<256, SLEEPS>>($($argument),*),
            0x400 => $function::<ShmemIpc<0x400, SLEEPS>>($($argument),*),
            0x1000 => $function::<ShmemIpc<0x1000, SLEEPS>>($($argument),*),
            0x1_0000 => $function::<ShmemIpc<0x1_0000, SLEEPS>>($($argument),*),
            0x10_0000 => $function::<ShmemIpc<0x10_0000, SLEEPS>>($($argument),*),
            other => panic!("this bench has no item type of {other} bytes"),
        }
    };
}

fn measure<const SLEEPS: bool>(case: &Case, setting: &Setting) -> Outcome {
    by_size!(measure_processes, setting.spec.size, case, setting)
}

fn serve<const SLEEPS: bool>(args: &ChildArgs) {
    by_size!(serve_process, args.spec.size, args);
}

/// One end of messages of `N` bytes; `SLEEPS`: blocks, otherwise polls.
pub struct ShmemIpc<const N: usize, const SLEEPS: bool> {
    tx: Sender<[u8; N]>,
    rx: Receiver<[u8; N]>,
}

impl<const N: usize, const SLEEPS: bool> fmt::Debug for ShmemIpc<N, SLEEPS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShmemIpc").finish_non_exhaustive()
    }
}

impl<const N: usize, const SLEEPS: bool> Bytes for ShmemIpc<N, SLEEPS> {
    #[inline]
    fn write(&mut self, message: &[u8]) {
        assert_eq!(message.len(), N, "not a message of this bench");
        let copy = |slot: *mut [u8; N], _room: usize| {
            // SAFETY: the library calls back only with room for an item; `message` has N bytes.
            unsafe { ptr::copy_nonoverlapping(message.as_ptr(), slot.cast(), N) };
            1
        };
        if SLEEPS {
            self.tx.block_until_writable().expect("a ring");
            self.tx.send_raw(copy).expect("a ring");
            return;
        }
        poll(|| {
            let mut sent = None;
            let send = |slot, room| {
                sent = Some(());
                copy(slot, room)
            };
            self.tx.sender_mut().send(send).expect("a ring");
            sent
        });
    }

    #[inline]
    fn read(&mut self, buffer: &mut [u8]) {
        assert_eq!(buffer.len(), N, "not a message of this bench");
        let mut copy = |slot: *const [u8; N], _count: usize| {
            // SAFETY: the library calls back only with an item; `buffer` has room for N bytes.
            unsafe { ptr::copy_nonoverlapping(slot.cast(), buffer.as_mut_ptr(), N) };
            1
        };
        if SLEEPS {
            self.rx.block_until_readable().expect("a ring");
            self.rx.receive_raw(copy).expect("a ring");
            return;
        }
        poll(|| {
            let mut received = None;
            let receive = |slot, count| {
                received = Some(());
                copy(slot, count)
            };
            self.rx.receiver_mut().recv(receive).expect("a ring");
            received
        });
    }
}

impl<const N: usize, const SLEEPS: bool> Transport for ShmemIpc<N, SLEEPS> {
    type End = Copied<Self>;

    fn create(spec: &Spec) -> (Self::End, Vec<OwnedFd>) {
        let items = spec.capacity / N;
        let tx = Sender::new(items).expect("a ring");
        let rx = Receiver::new(items).expect("a ring");
        let mut fds = Vec::new();
        let files = [tx.memfd().as_file(), tx.empty_signal(), tx.full_signal()]
            .into_iter()
            .chain([rx.memfd().as_file(), rx.empty_signal(), rx.full_signal()]);
        for file in files {
            fds.push(file.try_clone().expect("a second descriptor").into());
        }
        (Copied::new(Self { tx, rx }, spec), fds)
    }

    fn attach(spec: &Spec, fds: Vec<OwnedFd>) -> Self::End {
        let items = spec.capacity / N;
        let mut files = fds.into_iter().map(File::from);
        let mut next = || files.next().expect("six descriptors");
        let rx = Receiver::open(items, next(), next(), next()).expect("the near ring");
        let tx = Sender::open(items, next(), next(), next()).expect("the near ring");
        Copied::new(Self { tx, rx }, spec)
    }
}
