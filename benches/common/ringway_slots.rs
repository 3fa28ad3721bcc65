//! ringway's slots: the channel that a user calls, its batches, and the ring by itself.
//!
//! Rows of the slots bench.
//! What always holds: only the public API is used; values are arrays of words, as long as the
//! message, one type for each size of the bench.

use std::marker::PhantomData;
use std::os::fd::OwnedFd;

use ringway::channel::{ChannelOptions, SlotChannel, SlotReceiver, SlotSender};
use ringway::layout::ring::CONTROL;
use ringway::memory::{FenceMode, MappedMemory};
use ringway::ring::PushError;
use ringway::ring::slots::{SlotConsumer, SlotGeometry, SlotProducer};
use ringway::segment::{AnonymousSegment, ChannelGeometry};

use super::case::Transport;
use super::link::{Bytes, Copied, End, Spec, number_of, stamp};
use super::ringway_channel::{BATCH, Wait};
use super::shared::Spin;

fn options<W: Wait>(spec: &Spec) -> ChannelOptions {
    let capacity_bytes = spec.capacity as u64;
    ChannelOptions { capacity_bytes, wait: W::STRATEGY, ..ChannelOptions::default() }
}

/// The ends of one size.
#[derive(Debug)]
struct Ends<const WORDS: usize> {
    sender: SlotSender<[u64; WORDS]>,
    receiver: SlotReceiver<[u64; WORDS]>,
    out: [u64; WORDS],
    /// Values at hand for a batch, and numbers received and not yet asked for.
    batch: Vec<[u64; WORDS]>,
    numbers: Vec<u64>,
    returned: usize,
}

impl<const WORDS: usize> Ends<WORDS>
where
    [u64; WORDS]: bytemuck::Pod,
{
    fn new(channel: SlotChannel<[u64; WORDS], [u64; WORDS]>) -> Self {
        let (sender, receiver) = channel.split();
        let out = [0xa5; WORDS];
        Self { sender, receiver, out, batch: Vec::new(), numbers: Vec::new(), returned: 0 }
    }

    #[inline(always)]
    fn send(&mut self, number: u64) {
        stamp(bytemuck::bytes_of_mut(&mut self.out), number);
        self.sender.send(&self.out).expect("an open channel");
    }

    #[inline(always)]
    fn recv(&mut self) -> u64 {
        let value = self.receiver.recv().expect("an open channel");
        number_of(bytemuck::bytes_of(&value))
    }

    #[inline(always)]
    fn send_in_batch(&mut self, number: u64) {
        stamp(bytemuck::bytes_of_mut(&mut self.out), number);
        self.batch.push(self.out);
        if self.batch.len() == BATCH {
            self.flush();
        }
    }

    fn flush(&mut self) {
        self.sender.send_batch(&self.batch).expect("an open channel");
        self.batch.clear();
    }

    #[inline(always)]
    fn recv_in_batch(&mut self) -> u64 {
        if self.returned == self.numbers.len() {
            self.numbers.clear();
            self.returned = 0;
            let numbers = &mut self.numbers;
            let each = |value: [u64; WORDS]| numbers.push(number_of(bytemuck::bytes_of(&value)));
            self.receiver.recv_batch(BATCH, each).expect("an open channel");
        }
        self.returned += 1;
        self.numbers[self.returned - 1]
    }
}

macro_rules! sizes {
    ($($name:ident = $words:literal),*) => {
        /// One of the sizes of the bench.
        #[derive(Debug)]
        enum Sized {
            $($name(Box<Ends<$words>>)),*
        }

        impl Sized {
            fn create<W: Wait>(spec: &Spec) -> (Self, Vec<OwnedFd>) {
                match spec.size {
                    $(size if size == 8 * $words => {
                        let channel = SlotChannel::anonymous(&options::<W>(spec)).expect("a channel");
                        let fd = channel.descriptor().expect("a descriptor");
                        (Self::$name(Box::new(Ends::new(channel))), vec![fd])
                    })*
                    size => panic!("no values of {size} bytes in this bench"),
                }
            }

            fn attach<W: Wait>(spec: &Spec, mut fds: Vec<OwnedFd>) -> Self {
                match spec.size {
                    $(size if size == 8 * $words => {
                        let channel = SlotChannel::attach(fds.remove(0), &options::<W>(spec));
                        Self::$name(Box::new(Ends::new(channel.expect("the parent's channel"))))
                    })*
                    size => panic!("no values of {size} bytes in this bench"),
                }
            }
        }

        macro_rules! on {
            ($sized:expr, $ends:ident => $call:expr) => {
                match $sized { $(Sized::$name($ends) => $call),* }
            };
        }
    };
}

sizes! { W1 = 1, W2 = 2, W3 = 3, W6 = 6, W8 = 8, W32 = 32 }

/// `send` and `recv`, one value at a time.
#[derive(Debug)]
pub struct Slots<W>(Sized, PhantomData<W>);

impl<W: Wait> Transport for Slots<W> {
    type End = Self;

    fn create(spec: &Spec) -> (Self, Vec<OwnedFd>) {
        let (ends, fds) = Sized::create::<W>(spec);
        (Self(ends, PhantomData), fds)
    }

    fn attach(spec: &Spec, fds: Vec<OwnedFd>) -> Self {
        Self(Sized::attach::<W>(spec, fds), PhantomData)
    }
}

impl<W: Wait> End for Slots<W> {
    #[inline]
    fn send(&mut self, number: u64) {
        on!(&mut self.0, ends => ends.send(number));
    }

    #[inline]
    fn recv(&mut self) -> u64 {
        on!(&mut self.0, ends => ends.recv())
    }
}

/// `send_batch` of 32 values at hand, and `recv_batch`.
#[derive(Debug)]
pub struct SlotBatches<W>(Slots<W>);

impl<W: Wait> Transport for SlotBatches<W> {
    type End = Self;

    fn create(spec: &Spec) -> (Self, Vec<OwnedFd>) {
        let (slots, fds) = Slots::create(spec);
        (Self(slots), fds)
    }

    fn attach(spec: &Spec, fds: Vec<OwnedFd>) -> Self {
        Self(Slots::attach(spec, fds))
    }
}

impl<W: Wait> End for SlotBatches<W> {
    #[inline]
    fn send(&mut self, number: u64) {
        on!(&mut self.0.0, ends => ends.send_in_batch(number));
    }

    #[inline]
    fn flush(&mut self) {
        on!(&mut self.0.0, ends => ends.flush());
    }

    #[inline]
    fn recv(&mut self) -> u64 {
        on!(&mut self.0.0, ends => ends.recv_in_batch())
    }
}

/// The ring by itself: its lock-free ends, polled, with nobody asleep and nobody dying.
#[derive(Debug)]
pub struct SlotEnds {
    producer: SlotProducer<MappedMemory>,
    consumer: SlotConsumer<MappedMemory>,
    /// Keeps the memory mapped.
    _segment: AnonymousSegment,
}

impl SlotEnds {
    fn new(segment: AnonymousSegment, spec: &Spec, out: usize) -> Self {
        let memory = segment.memory().clone();
        let layout = segment.geometry().layout().expect("a valid layout");
        let ring = |number: usize| {
            let (control, data) = (CONTROL[number], layout.data[number]);
            SlotGeometry::new(&memory, control, data, spec.capacity as u64, spec.size as u32)
                .expect("a valid ring")
        };
        let producer = SlotProducer::attach(memory.clone(), ring(out)).expect("a fresh ring");
        let consumer = SlotConsumer::attach(memory.clone(), ring(1 - out)).expect("a fresh ring");
        Self { producer, consumer, _segment: segment }
    }
}

impl Transport for SlotEnds {
    type End = Copied<Self>;

    fn create(spec: &Spec) -> (Self::End, Vec<OwnedFd>) {
        let capacity = [spec.capacity as u64; 2];
        let geometry = ChannelGeometry::records(capacity, 8, FenceMode::Real);
        let segment = AnonymousSegment::create(&geometry).expect("an anonymous segment");
        let fd = segment.descriptor().expect("a descriptor");
        (Copied::new(Self::new(segment, spec, 0), spec), vec![fd])
    }

    fn attach(spec: &Spec, mut fds: Vec<OwnedFd>) -> Self::End {
        let segment = AnonymousSegment::attach(fds.remove(0)).expect("the parent's segment");
        Copied::new(Self::new(segment, spec, 1), spec)
    }
}

impl Bytes for SlotEnds {
    #[inline]
    fn write(&mut self, message: &[u8]) {
        let mut spin = Spin::default();
        while let Err(error) = self.producer.try_push(message) {
            assert!(matches!(error, PushError::Full { .. }), "{error}");
            spin.turn();
        }
    }

    #[inline]
    fn read(&mut self, buffer: &mut [u8]) {
        let mut spin = Spin::default();
        while !self.consumer.peek().expect("an honest peer") {
            self.consumer.release();
            spin.turn();
        }
        self.consumer.copy_out(buffer);
        self.consumer.advance();
    }
}
