//! A small ring of records, to try each point of the design against the plain way.
//!
//! Only the alternatives bench uses it.
//! What always holds: all designs share every line of code but the point that they differ in; none
//! of them survives a death or a lie, so none is a substitute for the library's ring.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // see shared.rs

use std::fmt::Debug;
use std::marker::PhantomData;
use std::os::fd::OwnedFd;
use std::sync::atomic::{Ordering, compiler_fence, fence};

use super::case::Transport;
use super::link::{Bytes, Copied, Spec};
use super::shared::{Shared, Spin, futex_wake};

/// Where the words of one direction lie, in bytes from its start.
const WAITING: usize = 0;
const HEAD: usize = 128;
const TAIL: usize = 256;
const DATA: usize = 512;
/// A record's header: length, and whether it is padding.
const COMMITTED: u64 = 1 << 32;
const PADDING: u64 = 1 << 33;

/// The points; the base has all of them as DESIGN says.
pub trait Design: Debug + 'static {
    /// The consumer polls a shared tail instead of the next header.
    const INDEX_PUBLISHED: bool = false;
    /// The producer reads the consumer's head for every message.
    const HEAD_NOT_CACHED: bool = false;
    /// The word that says whether the consumer sleeps is on the line of its head.
    const FLAG_BESIDE_HEAD: bool = false;
    /// A real fence between the commit and the look at that word.
    const REAL_FENCE: bool = false;
}

/// Header is the commit word, head cached, flag apart, no fence.
#[derive(Debug)]
pub struct Base;
impl Design for Base {}

/// See [`Design::INDEX_PUBLISHED`].
#[derive(Debug)]
pub struct IndexPublished;
impl Design for IndexPublished {
    const INDEX_PUBLISHED: bool = true;
}

/// See [`Design::HEAD_NOT_CACHED`].
#[derive(Debug)]
pub struct HeadNotCached;
impl Design for HeadNotCached {
    const HEAD_NOT_CACHED: bool = true;
}

/// See [`Design::FLAG_BESIDE_HEAD`].
#[derive(Debug)]
pub struct FlagBesideHead;
impl Design for FlagBesideHead {
    const FLAG_BESIDE_HEAD: bool = true;
}

/// See [`Design::REAL_FENCE`].
#[derive(Debug)]
pub struct RealFence;
impl Design for RealFence {
    const REAL_FENCE: bool = true;
}

/// One end: a ring out and a ring in.
#[derive(Debug)]
pub struct PlainRing<D> {
    shared: Shared,
    capacity: usize,
    out: Producer,
    inbox: Consumer,
    design: PhantomData<D>,
}

#[derive(Debug)]
struct Producer {
    start: usize,
    tail: u64,
    head: u64,
}

#[derive(Debug)]
struct Consumer {
    start: usize,
    head: u64,
    tail: u64,
}

impl<D: Design> PlainRing<D> {
    const FLAG: usize = if D::FLAG_BESIDE_HEAD { HEAD + 8 } else { WAITING };

    fn direction_bytes(capacity: usize) -> usize {
        (DATA + capacity).next_multiple_of(4096)
    }

    fn new(shared: Shared, spec: &Spec, out: usize, inbox: usize) -> Self {
        let capacity = spec.capacity;
        assert!(capacity.is_power_of_two() && spec.size + 16 <= capacity / 2);
        let bytes = Self::direction_bytes(capacity);
        let out = Producer { start: out * bytes, tail: 0, head: 0 };
        let inbox = Consumer { start: inbox * bytes, head: 0, tail: 0 };
        Self { shared, capacity, out, inbox, design: PhantomData }
    }

    #[inline(always)]
    fn at(&self, start: usize, position: u64) -> usize {
        start + DATA + (position as usize & (self.capacity - 1))
    }

    /// Waits until `needed` bytes behind the tail are free.
    #[inline(always)]
    fn wait_for_space(&mut self, needed: u64) {
        let wanted = self.out.tail + needed;
        if !D::HEAD_NOT_CACHED && wanted <= self.out.head + self.capacity as u64 {
            return;
        }
        let mut spin = Spin::default();
        loop {
            // Pairs with the Release in `read`.
            self.out.head = self.shared.word(self.out.start + HEAD).load(Ordering::Acquire);
            if wanted <= self.out.head + self.capacity as u64 {
                return;
            }
            spin.turn();
        }
    }

    /// Waits for a record; returns its header.
    #[inline(always)]
    fn wait_for_record(&mut self) -> u64 {
        let at = self.at(self.inbox.start, self.inbox.head);
        let mut spin = Spin::default();
        if D::INDEX_PUBLISHED {
            while self.inbox.tail == self.inbox.head {
                // Pairs with the Release in `write`.
                self.inbox.tail = self.shared.word(self.inbox.start + TAIL).load(Ordering::Acquire);
                spin.turn();
            }
            return self.shared.word(at).load(Ordering::Relaxed);
        }
        loop {
            // Pairs with the Release in `write`.
            let header = self.shared.word(at).load(Ordering::Acquire);
            if header != 0 {
                return header;
            }
            spin.turn();
        }
    }

    #[inline(always)]
    fn wake_if_waiting(&self) {
        if D::REAL_FENCE {
            fence(Ordering::SeqCst);
        } else {
            compiler_fence(Ordering::SeqCst);
        }
        let flag = self.shared.half(self.out.start + Self::FLAG);
        if flag.load(Ordering::Relaxed) != 0 {
            futex_wake(flag);
        }
    }
}

impl<D: Design> Bytes for PlainRing<D> {
    #[inline]
    fn write(&mut self, message: &[u8]) {
        let record = 8 + message.len().next_multiple_of(8) as u64;
        let in_lap = self.out.tail as usize & (self.capacity - 1);
        let room = (self.capacity - in_lap) as u64;
        let padding = if record > room { room } else { 0 };
        let (first, data) = (self.out.tail, self.out.tail + padding);
        // The 8 bytes are the next header's, which is zeroed ahead.
        self.wait_for_space(padding + record + 8);
        self.out.tail = data + record;
        if !D::INDEX_PUBLISHED {
            let next = self.at(self.out.start, self.out.tail);
            self.shared.word(next).store(0, Ordering::Relaxed);
        }
        let header = self.at(self.out.start, data);
        // SAFETY: `wait_for_space` found these bytes free: the reader has released them, and looks
        // at them again only when the header or the tail below says so.
        unsafe { self.shared.copy_in(header + 8, message) };
        let committed = COMMITTED | message.len() as u64;
        // Each of these pairs with an Acquire in `wait_for_record`.
        self.shared.word(header).store(committed, Ordering::Release);
        if padding != 0 {
            let filler = self.at(self.out.start, first);
            self.shared.word(filler).store(PADDING | padding, Ordering::Release);
        }
        if D::INDEX_PUBLISHED {
            self.shared.word(self.out.start + TAIL).store(self.out.tail, Ordering::Release);
        }
        self.wake_if_waiting();
    }

    #[inline]
    fn read(&mut self, buffer: &mut [u8]) {
        let mut header = self.wait_for_record();
        if header & PADDING != 0 {
            self.inbox.head += header & 0xffff_ffff;
            header = self.wait_for_record();
        }
        assert_eq!(header, COMMITTED | buffer.len() as u64, "not a record of this bench");
        let at = self.at(self.inbox.start, self.inbox.head);
        // SAFETY: the record is committed and not released: the writer leaves it alone.
        unsafe { self.shared.copy_out(at + 8, buffer) };
        self.inbox.head += 8 + buffer.len().next_multiple_of(8) as u64;
        // Pairs with the Acquire in `wait_for_space`.
        self.shared.word(self.inbox.start + HEAD).store(self.inbox.head, Ordering::Release);
    }
}

impl<D: Design> Transport for PlainRing<D> {
    type End = Copied<Self>;

    fn create(spec: &Spec) -> (Self::End, Vec<OwnedFd>) {
        let shared = Shared::create(2 * Self::direction_bytes(spec.capacity));
        let fd = shared.fd().try_clone_to_owned().expect("a second descriptor");
        (Copied::new(Self::new(shared, spec, 0, 1), spec), vec![fd])
    }

    fn attach(spec: &Spec, mut fds: Vec<OwnedFd>) -> Self::End {
        Copied::new(Self::new(Shared::attach(fds.remove(0)), spec, 1, 0), spec)
    }
}
