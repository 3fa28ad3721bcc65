//! Channels between threads of one process: `std::sync::mpsc`, `crossbeam-channel`, `rtrb`.
//!
//! Rows of both benches.
//! What always holds: all are bounded by the capacity of the row; up to 4 KiB a message of `mpsc`
//! and `crossbeam` is an array that the channel moves, above that a boxed copy; `rtrb` carries
//! bytes, copied in and out.

use std::sync::mpsc;

use super::case::{Case, Setting, Threads, measure_threads};
use super::link::{Bytes, Copied, End, Outcome, Spec, number_of, stamp};
use super::shared::Spin;

/// A channel of elements.
pub trait Flavour: 'static {
    type Tx<M: Send + 'static>: Send;
    type Rx<M: Send + 'static>: Send;
    fn channel<M: Send + 'static>(bound: usize) -> (Self::Tx<M>, Self::Rx<M>);
    /// Blocks while full.
    fn send<M: Send + 'static>(tx: &Self::Tx<M>, message: M);
    /// Gives the message back where full.
    fn try_send<M: Send + 'static>(tx: &Self::Tx<M>, message: M) -> Option<M>;
    /// Blocks while empty.
    fn recv<M: Send + 'static>(rx: &Self::Rx<M>) -> M;
    fn try_recv<M: Send + 'static>(rx: &Self::Rx<M>) -> Option<M>;
}

/// `std::sync::mpsc::sync_channel`.
#[derive(Debug)]
pub struct Std;

impl Flavour for Std {
    type Tx<M: Send + 'static> = mpsc::SyncSender<M>;
    type Rx<M: Send + 'static> = mpsc::Receiver<M>;

    fn channel<M: Send + 'static>(bound: usize) -> (Self::Tx<M>, Self::Rx<M>) {
        mpsc::sync_channel(bound)
    }

    fn send<M: Send + 'static>(tx: &Self::Tx<M>, message: M) {
        assert!(tx.send(message).is_ok(), "the receiver is gone");
    }

    fn try_send<M: Send + 'static>(tx: &Self::Tx<M>, message: M) -> Option<M> {
        match tx.try_send(message) {
            Ok(()) => None,
            Err(mpsc::TrySendError::Full(message)) => Some(message),
            Err(mpsc::TrySendError::Disconnected(_)) => panic!("the receiver is gone"),
        }
    }

    fn recv<M: Send + 'static>(rx: &Self::Rx<M>) -> M {
        rx.recv().expect("a sender")
    }

    fn try_recv<M: Send + 'static>(rx: &Self::Rx<M>) -> Option<M> {
        match rx.try_recv() {
            Ok(message) => Some(message),
            Err(mpsc::TryRecvError::Empty) => None,
            Err(mpsc::TryRecvError::Disconnected) => panic!("the sender is gone"),
        }
    }
}

/// `crossbeam_channel::bounded`.
#[derive(Debug)]
pub struct Crossbeam;

impl Flavour for Crossbeam {
    type Tx<M: Send + 'static> = crossbeam_channel::Sender<M>;
    type Rx<M: Send + 'static> = crossbeam_channel::Receiver<M>;

    fn channel<M: Send + 'static>(bound: usize) -> (Self::Tx<M>, Self::Rx<M>) {
        crossbeam_channel::bounded(bound)
    }

    fn send<M: Send + 'static>(tx: &Self::Tx<M>, message: M) {
        assert!(tx.send(message).is_ok(), "the receiver is gone");
    }

    fn try_send<M: Send + 'static>(tx: &Self::Tx<M>, message: M) -> Option<M> {
        match tx.try_send(message) {
            Ok(()) => None,
            Err(crossbeam_channel::TrySendError::Full(message)) => Some(message),
            Err(crossbeam_channel::TrySendError::Disconnected(_)) => panic!("the receiver is gone"),
        }
    }

    fn recv<M: Send + 'static>(rx: &Self::Rx<M>) -> M {
        rx.recv().expect("a sender")
    }

    fn try_recv<M: Send + 'static>(rx: &Self::Rx<M>) -> Option<M> {
        match rx.try_recv() {
            Ok(message) => Some(message),
            Err(crossbeam_channel::TryRecvError::Empty) => None,
            Err(crossbeam_channel::TryRecvError::Disconnected) => panic!("the sender is gone"),
        }
    }
}

/// A message as one element.
pub trait Element: Send + 'static {
    fn zeroed(len: usize) -> Self;
    fn as_bytes(&mut self) -> &mut [u8];
    /// What is sent: a copy of all bytes.
    fn copy(&self) -> Self;
    /// Copies all bytes of what was received.
    fn take(&mut self, received: Self);
}

impl<const N: usize> Element for [u8; N] {
    fn zeroed(_len: usize) -> Self {
        [0; N]
    }

    fn as_bytes(&mut self) -> &mut [u8] {
        self
    }

    fn copy(&self) -> Self {
        *self
    }

    fn take(&mut self, received: Self) {
        *self = received;
    }
}

impl Element for Box<[u8]> {
    fn zeroed(len: usize) -> Self {
        vec![0; len].into_boxed_slice()
    }

    fn as_bytes(&mut self) -> &mut [u8] {
        self
    }

    fn copy(&self) -> Self {
        self.clone()
    }

    fn take(&mut self, received: Self) {
        self.copy_from_slice(&received);
    }
}

/// An end of two channels of elements; `SPIN`: polls, otherwise blocks as the channel does.
#[derive(Debug)]
pub struct Elements<F: Flavour, M: Element, const SPIN: bool> {
    tx: F::Tx<M>,
    rx: F::Rx<M>,
    out: M,
    inbox: M,
}

impl<F: Flavour, M: Element, const SPIN: bool> Elements<F, M, SPIN> {
    fn new(tx: F::Tx<M>, rx: F::Rx<M>, size: usize) -> Self {
        Self { tx, rx, out: M::zeroed(size), inbox: M::zeroed(size) }
    }
}

impl<F: Flavour, M: Element, const SPIN: bool> Threads for Elements<F, M, SPIN> {
    type End = Self;

    fn pair(spec: &Spec) -> (Self, Self) {
        let bound = (spec.capacity / spec.size).max(1);
        let (there, far_rx) = F::channel(bound);
        let (back, near_rx) = F::channel(bound);
        (Self::new(there, near_rx, spec.size), Self::new(back, far_rx, spec.size))
    }
}

impl<F: Flavour, M: Element, const SPIN: bool> End for Elements<F, M, SPIN> {
    #[inline]
    fn send(&mut self, number: u64) {
        stamp(self.out.as_bytes(), number);
        if !SPIN {
            return F::send(&self.tx, self.out.copy());
        }
        let mut spin = Spin::default();
        let mut message = self.out.copy();
        while let Some(refused) = F::try_send(&self.tx, message) {
            message = refused;
            spin.turn();
        }
    }

    #[inline]
    fn recv(&mut self) -> u64 {
        if SPIN {
            let mut spin = Spin::default();
            loop {
                if let Some(received) = F::try_recv(&self.rx) {
                    self.inbox.take(received);
                    break;
                }
                spin.turn();
            }
        } else {
            self.inbox.take(F::recv(&self.rx));
        }
        number_of(self.inbox.as_bytes())
    }
}

/// For [`Case::threads`]: elements of the size that the setting asks for.
pub fn elements<F: Flavour, const SPIN: bool>(case: &Case, setting: &Setting) -> Outcome {
    match setting.spec.size {
        8 => measure_threads::<Elements<F, [u8; 8], SPIN>>(case, setting),
        48 => measure_threads::<Elements<F, [u8; 48], SPIN>>(case, setting),
        64 => measure_threads::<Elements<F, [u8; 64], SPIN>>(case, setting),
        256 => measure_threads::<Elements<F, [u8; 256], SPIN>>(case, setting),
        1024 => measure_threads::<Elements<F, [u8; 1024], SPIN>>(case, setting),
        4096 => measure_threads::<Elements<F, [u8; 4096], SPIN>>(case, setting),
        _ => measure_threads::<Elements<F, Box<[u8]>, SPIN>>(case, setting),
    }
}

/// `rtrb::RingBuffer<u8>`: bytes copied in and out of it, unframed. It has nothing to sleep on.
#[derive(Debug)]
pub struct Rtrb {
    tx: rtrb::Producer<u8>,
    rx: rtrb::Consumer<u8>,
}

impl Threads for Rtrb {
    type End = Copied<Self>;

    fn pair(spec: &Spec) -> (Self::End, Self::End) {
        let (there, far_rx) = rtrb::RingBuffer::new(spec.capacity);
        let (back, near_rx) = rtrb::RingBuffer::new(spec.capacity);
        let near = Self { tx: there, rx: near_rx };
        let far = Self { tx: back, rx: far_rx };
        (Copied::new(near, spec), Copied::new(far, spec))
    }
}

impl Bytes for Rtrb {
    #[inline]
    fn write(&mut self, message: &[u8]) {
        let mut spin = Spin::default();
        while self.tx.push_entire_slice(message).is_err() {
            spin.turn();
        }
    }

    #[inline]
    fn read(&mut self, buffer: &mut [u8]) {
        let mut spin = Spin::default();
        while self.rx.pop_entire_slice(buffer).is_err() {
            spin.turn();
        }
    }
}
