//! iceoryx2: publish and subscribe between processes, slices of bytes.
//!
//! Rows: every byte copied into a loaned sample and out of a received one; first and last 8 bytes
//! written and read in place; and copied, with an event that wakes the sleeping receiver.
//! What always holds: nothing is lost (no overflow, the publisher retries), a service has one
//! publisher and one subscriber, and all files lie under this measurement's own root and prefix.

use std::fmt;
use std::os::fd::OwnedFd;

use ::iceoryx2::port::listener::Listener;
use ::iceoryx2::port::notifier::Notifier;
use ::iceoryx2::port::publisher::Publisher;
use ::iceoryx2::port::subscriber::Subscriber;
use ::iceoryx2::prelude::*;
use ::iceoryx2::service::port_factory::publish_subscribe;

use super::poll;
use crate::common::case::Transport;
use crate::common::isolated::{far_name, near_name};
use crate::common::link::{End, Spec, number_of, stamp};

/// Samples at most: it prepares them, and their bookkeeping, in advance.
pub const MOST_SAMPLES: usize = 1024;

type PubSub = publish_subscribe::PortFactory<ipc::Service, [u8], ()>;

/// A node and, in each direction, a service.
struct Ports {
    tx: Publisher<ipc::Service, [u8], ()>,
    rx: Subscriber<ipc::Service, [u8], ()>,
    size: usize,
    // Ports keep what they need of both alive; these are dropped last.
    _services: [PubSub; 2],
    node: Node<ipc::Service>,
}

/// A node all of whose files lie under this prefix, in this measurement's directory.
pub fn node(name: &str) -> Node<ipc::Service> {
    set_log_level(LogLevel::Error);
    let mut config = Config::default();
    config.global.prefix = FileName::new(name.as_bytes()).expect("a prefix");
    let root = std::env::temp_dir();
    let root = Path::new(root.to_str().expect("UTF-8").as_bytes()).expect("a path");
    config.global.set_root_path(&root);
    NodeBuilder::new()
        .config(&config)
        .signal_handling_mode(SignalHandlingMode::Disabled)
        .create::<ipc::Service>()
        .expect("a node")
}

fn ports(name: &str, spec: &Spec, near: bool) -> Ports {
    let node = node(name);
    let service = |name: &str| {
        node.service_builder(&name.try_into().expect("a service name"))
            .publish_subscribe::<[u8]>()
            .max_publishers(1)
            .max_subscribers(1)
            .history_size(0)
            .subscriber_max_buffer_size((spec.capacity / spec.size).clamp(1, MOST_SAMPLES))
            .enable_safe_overflow(false)
            .open_or_create()
            .expect("a service")
    };
    let services = ["there", "back"].map(service);
    let (out, inbox) = if near { (0, 1) } else { (1, 0) };
    let rx = services[inbox].subscriber_builder().create().expect("a subscriber");
    let tx = services[out]
        .publisher_builder()
        .initial_max_slice_len(spec.size)
        .backpressure_strategy(BackpressureStrategy::RetryUntilDelivered)
        .create()
        .expect("a publisher");
    Ports { tx, rx, size: spec.size, _services: services, node }
}

impl Ports {
    #[inline]
    fn publish_copy(&self, message: &[u8]) {
        let sample = self.tx.loan_slice_uninit(message.len()).expect("a sample");
        sample.write_from_slice(message).send().expect("sending");
    }

    /// The first and last 8 bytes are written; the rest stays as the slot was.
    #[inline]
    fn publish_in_place(&self, number: u64) {
        let mut sample = self.tx.loan_slice_uninit(self.size).expect("a sample");
        let bytes = sample.payload_mut();
        for (to, byte) in bytes[..8].iter_mut().zip(number.to_ne_bytes()) {
            to.write(byte);
        }
        for (to, byte) in bytes[self.size - 8..].iter_mut().zip(number.to_ne_bytes()) {
            to.write(byte);
        }
        // SAFETY: bytes of a shared mapping, which are some value whether written or not; nobody
        // reads those between the first and the last 8.
        let sample = unsafe { sample.assume_init() };
        sample.send().expect("sending");
    }
}

impl fmt::Debug for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ports").field("size", &self.size).finish_non_exhaustive()
    }
}

/// All bytes copied in and out.
#[derive(Debug)]
pub struct Copied {
    ports: Ports,
    out: Vec<u8>,
    inbox: Vec<u8>,
}

impl Copied {
    fn new(ports: Ports, spec: &Spec) -> Self {
        Self { ports, out: vec![0xa5; spec.size], inbox: vec![0x5a; spec.size] }
    }

    #[inline]
    fn try_receive(&mut self) -> Option<u64> {
        let sample = self.ports.rx.receive().expect("receiving")?;
        self.inbox.copy_from_slice(sample.payload());
        Some(number_of(&self.inbox))
    }
}

impl Transport for Copied {
    type End = Self;

    fn create(spec: &Spec) -> (Self, Vec<OwnedFd>) {
        (Self::new(ports(&near_name(), spec, true), spec), Vec::new())
    }

    fn attach(spec: &Spec, _fds: Vec<OwnedFd>) -> Self {
        Self::new(ports(&far_name(), spec, false), spec)
    }
}

impl End for Copied {
    #[inline]
    fn send(&mut self, number: u64) {
        stamp(&mut self.out, number);
        self.ports.publish_copy(&self.out);
    }

    #[inline]
    fn recv(&mut self) -> u64 {
        poll(|| self.try_receive())
    }
}

/// Loaned samples, first and last 8 bytes written and read.
#[derive(Debug)]
pub struct Loaned(Ports);

impl Transport for Loaned {
    type End = Self;

    fn create(spec: &Spec) -> (Self, Vec<OwnedFd>) {
        (Self(ports(&near_name(), spec, true)), Vec::new())
    }

    fn attach(spec: &Spec, _fds: Vec<OwnedFd>) -> Self {
        Self(ports(&far_name(), spec, false))
    }
}

impl End for Loaned {
    #[inline]
    fn send(&mut self, number: u64) {
        self.0.publish_in_place(number);
    }

    #[inline]
    fn recv(&mut self) -> u64 {
        let sample = poll(|| self.0.rx.receive().expect("receiving"));
        let bytes = sample.payload();
        let word = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let number = word(0);
        assert_eq!(word(bytes.len() - 8), number, "the end of a message is wrong");
        number
    }
}

/// Copied, and announced by an event: the receiver sleeps in its listener.
#[derive(Debug)]
pub struct Woken {
    copied: Copied,
    notifier: Notifier<ipc::Service>,
    listener: Listener<ipc::Service>,
}

impl Woken {
    fn new(ports: Ports, spec: &Spec, near: bool) -> Self {
        let event = |name: &str| {
            ports
                .node
                .service_builder(&name.try_into().expect("a service name"))
                .event()
                .open_or_create()
                .expect("an event service")
        };
        let events = ["wake there", "wake back"].map(event);
        let (out, inbox) = if near { (0, 1) } else { (1, 0) };
        let listener = events[inbox].listener_builder().create().expect("a listener");
        let notifier = events[out].notifier_builder().create().expect("a notifier");
        Self { copied: Copied::new(ports, spec), notifier, listener }
    }
}

impl Transport for Woken {
    type End = Self;

    fn create(spec: &Spec) -> (Self, Vec<OwnedFd>) {
        (Self::new(ports(&near_name(), spec, true), spec, true), Vec::new())
    }

    fn attach(spec: &Spec, _fds: Vec<OwnedFd>) -> Self {
        Self::new(ports(&far_name(), spec, false), spec, false)
    }
}

impl End for Woken {
    fn send(&mut self, number: u64) {
        self.copied.send(number);
        self.notifier.notify().expect("notifying");
    }

    fn recv(&mut self) -> u64 {
        loop {
            if let Some(number) = self.copied.try_receive() {
                return number;
            }
            self.listener.blocking_wait(|_| ()).expect("waiting");
        }
    }
}
