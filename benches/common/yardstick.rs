//! What the machine itself can do: the figures that everything else is divided by.
//!
//! The plans measure them before and after the rows of each size.
//! What always holds: they carry no protocol beyond what their first line says.
#![allow(clippy::disallowed_types)] // see shared.rs

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::case::Transport;
use super::link::{Bytes, Copied, End, Spec};
use super::shared::{Shared, Spin, futex_wait, futex_wake};

/// Two words, or two flags and blocks, lie this far apart.
const LINE: usize = 128;

fn duplicate(shared: &Shared) -> OwnedFd {
    shared.fd().try_clone_to_owned().expect("a second descriptor")
}

/// **Line round trip**: two processes bounce two cache lines. A message is one word.
#[derive(Debug)]
pub struct Line {
    shared: Shared,
    out: usize,
    inbox: usize,
    last: u64,
}

impl Transport for Line {
    type End = Self;

    fn create(_spec: &Spec) -> (Self, Vec<OwnedFd>) {
        let shared = Shared::create(4096);
        let fds = vec![duplicate(&shared)];
        (Self { shared, out: 0, inbox: LINE, last: 0 }, fds)
    }

    fn attach(_spec: &Spec, mut fds: Vec<OwnedFd>) -> Self {
        Self { shared: Shared::attach(fds.remove(0)), out: LINE, inbox: 0, last: 0 }
    }
}

impl End for Line {
    #[inline]
    fn send(&mut self, number: u64) {
        // Zero is what an empty line holds.
        self.shared.word(self.out).store(number.wrapping_add(3), Ordering::Release);
    }

    #[inline]
    fn recv(&mut self) -> u64 {
        let word: &AtomicU64 = self.shared.word(self.inbox);
        loop {
            let value = word.load(Ordering::Acquire);
            if value != self.last {
                self.last = value;
                return value.wrapping_sub(3);
            }
        }
    }
}

/// **Raw futex round trip**: two processes wake each other, each asleep in between. `TIMED`: every
/// sleep has an end, which never comes; the kernel starts and stops a timer for it.
#[derive(Debug)]
pub struct Futex<const TIMED: bool = false> {
    shared: Shared,
    out: usize,
    inbox: usize,
    sent: u32,
    received: u32,
}

impl<const TIMED: bool> Transport for Futex<TIMED> {
    type End = Self;

    fn create(_spec: &Spec) -> (Self, Vec<OwnedFd>) {
        let shared = Shared::create(4096);
        let fds = vec![duplicate(&shared)];
        (Self { shared, out: 0, inbox: LINE, sent: 0, received: 0 }, fds)
    }

    fn attach(_spec: &Spec, mut fds: Vec<OwnedFd>) -> Self {
        let shared = Shared::attach(fds.remove(0));
        Self { shared, out: LINE, inbox: 0, sent: 0, received: 0 }
    }
}

impl<const TIMED: bool> End for Futex<TIMED> {
    fn send(&mut self, number: u64) {
        self.sent = self.sent.wrapping_add(1);
        self.shared.word(self.out + 8).store(number, Ordering::Relaxed);
        let word: &AtomicU32 = self.shared.half(self.out);
        word.store(self.sent, Ordering::Release);
        futex_wake(word);
    }

    fn recv(&mut self) -> u64 {
        let word: &AtomicU32 = self.shared.half(self.inbox);
        while word.load(Ordering::Acquire) == self.received {
            futex_wait(word, self.received, TIMED.then_some(Duration::from_millis(250)));
        }
        self.received = self.received.wrapping_add(1);
        assert_eq!(word.load(Ordering::Relaxed), self.received, "a wakeup too many");
        self.shared.word(self.inbox + 8).load(Ordering::Relaxed)
    }
}

/// **Streaming limit**: the same blocks filled and read over and over, one flag a block.
///
/// Blocks of at most 256 bytes stand behind their flags; the flags of larger ones lie apart, a line
/// each. Copied in and out of private buffers, like every other row. It is a limit for large
/// blocks only: small messages can do better than a flag each.
#[derive(Debug)]
pub struct Streaming {
    shared: Shared,
    out: Lane,
    inbox: Lane,
}

/// One direction.
#[derive(Debug)]
struct Lane {
    flags: usize,
    flag_stride: usize,
    blocks: usize,
    block_stride: usize,
    count: usize,
    index: usize,
}

impl Lane {
    fn new(start: usize, spec: &Spec) -> Self {
        let block = spec.size.next_multiple_of(8);
        if spec.size <= 256 {
            let (stride, count) = (block + 8, spec.capacity / (block + 8));
            let (flag_stride, block_stride) = (stride, stride);
            Self { flags: start, flag_stride, blocks: start + 8, block_stride, count, index: 0 }
        } else {
            let count = spec.capacity / block;
            let blocks = start + (count * LINE).next_multiple_of(4096);
            let (flag_stride, block_stride) = (LINE, block);
            Self { flags: start, flag_stride, blocks, block_stride, count, index: 0 }
        }
    }

    fn end(&self) -> usize {
        (self.blocks + self.count * self.block_stride).next_multiple_of(4096)
    }

    fn pair(spec: &Spec) -> (Self, Self) {
        let first = Self::new(0, spec);
        let second = Self::new(first.end(), spec);
        (first, second)
    }

    /// Waits until the current block's flag is `value`; returns where flag and block lie.
    #[inline(always)]
    fn wait(&self, shared: &Shared, value: u64) -> (usize, usize) {
        let flag = self.flags + self.index * self.flag_stride;
        let mut spin = Spin::default();
        while shared.word(flag).load(Ordering::Acquire) != value {
            spin.turn();
        }
        (flag, self.blocks + self.index * self.block_stride)
    }

    #[inline(always)]
    fn advance(&mut self) {
        self.index += 1;
        if self.index == self.count {
            self.index = 0;
        }
    }
}

impl Streaming {
    fn over_new(spec: &Spec) -> (Self, Vec<OwnedFd>) {
        let (out, inbox) = Lane::pair(spec);
        let shared = Shared::create(inbox.end());
        let fds = vec![duplicate(&shared)];
        (Self { shared, out, inbox }, fds)
    }

    fn over_given(spec: &Spec, mut fds: Vec<OwnedFd>) -> Self {
        let (inbox, out) = Lane::pair(spec);
        Self { shared: Shared::attach(fds.remove(0)), out, inbox }
    }
}

impl Transport for Streaming {
    type End = Copied<Self>;

    fn create(spec: &Spec) -> (Self::End, Vec<OwnedFd>) {
        let (streaming, fds) = Self::over_new(spec);
        (Copied::new(streaming, spec), fds)
    }

    fn attach(spec: &Spec, fds: Vec<OwnedFd>) -> Self::End {
        Copied::new(Self::over_given(spec, fds), spec)
    }
}

impl Bytes for Streaming {
    #[inline]
    fn write(&mut self, message: &[u8]) {
        let (flag, block) = self.out.wait(&self.shared, 0);
        // SAFETY: a block whose flag is 0 is the sender's.
        unsafe { self.shared.copy_in(block, message) };
        self.shared.word(flag).store(1, Ordering::Release);
        self.out.advance();
    }

    #[inline]
    fn read(&mut self, buffer: &mut [u8]) {
        let (flag, block) = self.inbox.wait(&self.shared, 1);
        // SAFETY: a block whose flag is 1 is the receiver's.
        unsafe { self.shared.copy_out(block, buffer) };
        self.shared.word(flag).store(0, Ordering::Release);
        self.inbox.advance();
    }
}

/// **Streaming limit** of messages longer than what carries them: the message goes block by block
/// through the same few blocks, and becomes whole in the receiver's buffer.
#[derive(Debug)]
pub struct InBlocks {
    blocks: Streaming,
    block_bytes: usize,
}

impl InBlocks {
    /// Blocks that are as long as makes the limit high: long ones, several of them.
    fn block(spec: &Spec) -> Spec {
        Spec { size: (spec.capacity / 8).clamp(4 << 10, 64 << 10), capacity: spec.capacity }
    }
}

impl Transport for InBlocks {
    type End = Copied<Self>;

    fn create(spec: &Spec) -> (Self::End, Vec<OwnedFd>) {
        let block = Self::block(spec);
        let (blocks, fds) = Streaming::over_new(&block);
        (Copied::new(Self { blocks, block_bytes: block.size }, spec), fds)
    }

    fn attach(spec: &Spec, fds: Vec<OwnedFd>) -> Self::End {
        let block = Self::block(spec);
        let blocks = Streaming::over_given(&block, fds);
        Copied::new(Self { blocks, block_bytes: block.size }, spec)
    }
}

impl Bytes for InBlocks {
    fn write(&mut self, message: &[u8]) {
        message.chunks(self.block_bytes).for_each(|block| self.blocks.write(block));
    }

    fn read(&mut self, buffer: &mut [u8]) {
        buffer.chunks_mut(self.block_bytes).for_each(|block| self.blocks.read(block));
    }
}
