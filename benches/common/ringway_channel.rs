//! ringway's channel: what a user calls, in every way that it can wait and carry.
//!
//! Rows of the round trip and throughput benches.
//! What always holds: only the public API is used; the channel is the default one but for its
//! capacity and the way of waiting that the row names.

use std::os::fd::OwnedFd;

use ringway::channel::{Channel, ChannelOptions, Receiver, Sender, Trusted};
use ringway::wakeup::WaitStrategy;

use super::case::Transport;
use super::link::{End, Spec, number_of, stamp};

/// How both sides wait.
pub trait Wait: std::fmt::Debug {
    const STRATEGY: WaitStrategy;
    /// Whether sleepers wait on events instead of futexes.
    #[cfg(feature = "raw-sync-event")]
    const EVENTS: bool = false;
}

/// [`WaitStrategy::Spin`].
#[derive(Debug)]
pub struct Spins;
impl Wait for Spins {
    const STRATEGY: WaitStrategy = WaitStrategy::Spin;
}

/// [`WaitStrategy::SpinThenPark`], the default.
#[derive(Debug)]
pub struct SpinsThenParks;
impl Wait for SpinsThenParks {
    const STRATEGY: WaitStrategy = WaitStrategy::SpinThenPark;
}

/// [`WaitStrategy::Park`].
#[derive(Debug)]
pub struct Parks;
impl Wait for Parks {
    const STRATEGY: WaitStrategy = WaitStrategy::Park;
}

/// [`WaitStrategy::Park`], on `raw_sync` events.
#[cfg(feature = "raw-sync-event")]
#[derive(Debug)]
pub struct ParksOnEvents;
#[cfg(feature = "raw-sync-event")]
impl Wait for ParksOnEvents {
    const STRATEGY: WaitStrategy = WaitStrategy::Park;
    const EVENTS: bool = true;
}

fn options<W: Wait>(spec: &Spec) -> ChannelOptions {
    let capacity_bytes = spec.capacity as u64;
    ChannelOptions { capacity_bytes, wait: W::STRATEGY, ..ChannelOptions::default() }
}

pub(super) fn create<W: Wait>(spec: &Spec) -> (Channel, Vec<OwnedFd>) {
    let options = options::<W>(spec);
    #[cfg(feature = "raw-sync-event")]
    let channel = match W::EVENTS {
        // SAFETY: both sides are this program, which reaches the segment through the crate only.
        true => unsafe { Channel::anonymous_with_event(&options) },
        false => Channel::anonymous(&options),
    };
    #[cfg(not(feature = "raw-sync-event"))]
    let channel = Channel::anonymous(&options);
    let channel = channel.expect("a channel");
    let fd = channel.descriptor().expect("a descriptor");
    (channel, vec![fd])
}

pub(super) fn attach<W: Wait>(spec: &Spec, mut fds: Vec<OwnedFd>) -> Channel {
    let fd = fds.remove(0);
    let options = options::<W>(spec);
    #[cfg(feature = "raw-sync-event")]
    if W::EVENTS {
        // SAFETY: as in `create`, which has made the segment.
        return unsafe { Channel::attach_with_event(fd, &options) }.expect("the parent's channel");
    }
    Channel::attach(fd, &options).expect("the parent's channel")
}

/// `send` and `recv`: all bytes copied in, and out into the buffer that the receiver lends.
#[derive(Debug)]
pub struct Copying<W> {
    sender: Sender,
    receiver: Receiver,
    out: Vec<u8>,
    wait: std::marker::PhantomData<W>,
}

impl<W: Wait> Copying<W> {
    fn new(channel: Channel, spec: &Spec) -> Self {
        let (sender, receiver) = channel.split();
        Self { sender, receiver, out: vec![0xa5; spec.size], wait: std::marker::PhantomData }
    }
}

impl<W: Wait> Transport for Copying<W> {
    type End = Self;

    fn create(spec: &Spec) -> (Self, Vec<OwnedFd>) {
        let (channel, fds) = create::<W>(spec);
        (Self::new(channel, spec), fds)
    }

    fn attach(spec: &Spec, fds: Vec<OwnedFd>) -> Self {
        Self::new(attach::<W>(spec, fds), spec)
    }
}

impl<W: Wait> End for Copying<W> {
    #[inline]
    fn send(&mut self, number: u64) {
        stamp(&mut self.out, number);
        self.sender.send(&self.out).expect("an open channel");
    }

    #[inline]
    fn recv(&mut self) -> u64 {
        let message = self.receiver.recv().expect("an open channel");
        assert_eq!(message.len(), self.out.len(), "not a message of this bench");
        number_of(&message)
    }
}

/// In place: the sender writes the first and last 8 bytes in the ring, the receiver reads them there.
#[derive(Debug)]
pub struct InPlace<W> {
    sender: Trusted<Sender>,
    receiver: Trusted<Receiver>,
    size: usize,
    wait: std::marker::PhantomData<W>,
}

impl<W: Wait> InPlace<W> {
    fn new(channel: Channel, spec: &Spec) -> Self {
        let (sender, receiver) = channel.split();
        // SAFETY: the peer is this program, which reaches the segment through the crate only.
        let sender = unsafe { sender.trust_peer() };
        // SAFETY: as above.
        let receiver = unsafe { receiver.trust_peer() };
        Self { sender, receiver, size: spec.size, wait: std::marker::PhantomData }
    }
}

impl<W: Wait> Transport for InPlace<W> {
    type End = Self;

    fn create(spec: &Spec) -> (Self, Vec<OwnedFd>) {
        let (channel, fds) = create::<W>(spec);
        (Self::new(channel, spec), fds)
    }

    fn attach(spec: &Spec, fds: Vec<OwnedFd>) -> Self {
        Self::new(attach::<W>(spec, fds), spec)
    }
}

impl<W: Wait> End for InPlace<W> {
    #[inline]
    fn send(&mut self, number: u64) {
        let mut slot = self.sender.reserve_in_place(self.size).expect("an open channel");
        let bytes = slot.as_mut_slice();
        let tail = bytes.len() - 8;
        // What lies beside the header last, as `Producer::fill` does.
        bytes[tail..].copy_from_slice(&number.to_ne_bytes());
        bytes[..8].copy_from_slice(&number.to_ne_bytes());
        slot.commit();
    }

    #[inline]
    fn recv(&mut self) -> u64 {
        let message = self.receiver.recv_in_place().expect("an open channel");
        assert_eq!(message.len(), self.size, "not a message of this bench");
        let word = |at: usize| u64::from_ne_bytes(message[at..at + 8].try_into().expect("8 bytes"));
        let number = word(0);
        assert_eq!(word(self.size - 8), number, "the end of a message is wrong");
        number
    }
}

/// How many messages a batch holds.
pub const BATCH: usize = 32;

/// `send_batch` of 32 messages at hand, and `recv_batch`: all bytes copied in and out.
#[derive(Debug)]
pub struct Batches {
    sender: Sender,
    receiver: Receiver,
    size: usize,
    /// Messages at hand, one behind the other.
    out: Vec<u8>,
    waiting: usize,
    /// Numbers received and not yet asked for.
    numbers: [u64; BATCH],
    received: usize,
    returned: usize,
}

impl Batches {
    fn new(channel: Channel, spec: &Spec) -> Self {
        let (sender, receiver) = channel.split();
        let out = vec![0xa5; BATCH * spec.size];
        let numbers = [0; BATCH];
        let size = spec.size;
        Self { sender, receiver, size, out, waiting: 0, numbers, received: 0, returned: 0 }
    }
}

impl Transport for Batches {
    type End = Self;

    fn create(spec: &Spec) -> (Self, Vec<OwnedFd>) {
        let (channel, fds) = create::<Spins>(spec);
        (Self::new(channel, spec), fds)
    }

    fn attach(spec: &Spec, fds: Vec<OwnedFd>) -> Self {
        Self::new(attach::<Spins>(spec, fds), spec)
    }
}

impl End for Batches {
    #[inline]
    fn send(&mut self, number: u64) {
        let start = self.waiting * self.size;
        stamp(&mut self.out[start..start + self.size], number);
        self.waiting += 1;
        if self.waiting == BATCH {
            self.flush();
        }
    }

    #[inline]
    fn flush(&mut self) {
        let messages = self.out[..self.waiting * self.size].chunks_exact(self.size);
        self.sender.send_batch(messages).expect("an open channel");
        self.waiting = 0;
    }

    #[inline]
    fn recv(&mut self) -> u64 {
        if self.returned == self.received {
            let (mut count, size) = (0, self.size);
            let numbers = &mut self.numbers;
            let each = |message: ringway::channel::Message<'_>| {
                assert_eq!(message.len(), size, "not a message of this bench");
                numbers[count] = number_of(&message);
                count += 1;
            };
            self.received = self.receiver.recv_batch(BATCH, each).expect("an open channel");
            self.returned = 0;
        }
        self.returned += 1;
        self.numbers[self.returned - 1]
    }
}
