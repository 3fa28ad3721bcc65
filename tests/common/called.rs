//! Callbacks that tell the test what they were called with.

use std::sync::mpsc::{self, Receiver as Inbox};

use ringway::channel::{Channel, ChannelOptions, Message, Passive, Receiver, Sender};

use super::plugin::NEVER;

/// A sender and the receiver at its other side.
pub fn one_way() -> (Sender, Receiver) {
    let options = ChannelOptions { capacity_bytes: 1024, ..ChannelOptions::default() };
    let (near, far) = Channel::pair(&options).expect("a channel");
    (near.split().0, far.split().1)
}

pub fn all(_: &Message<'_>) -> bool {
    true
}

/// Tells the reports, as text.
pub fn reported(passive: Passive) -> (Passive, Inbox<String>) {
    let (tell, told) = mpsc::channel();
    (passive.report(move |report| drop(tell.send(report.to_string()))), told)
}

/// Tells what it is called with.
pub fn telling() -> (impl FnMut(&Message<'_>) + Send + 'static, Inbox<Vec<u8>>) {
    let (tell, told) = mpsc::channel();
    (move |m: &Message<'_>| drop(tell.send(m.to_vec())), told)
}

pub fn next<T>(told: &Inbox<T>) -> T {
    told.recv_timeout(NEVER).expect("in time")
}

pub fn panics(message: &Message<'_>) {
    panic!("no {}", message.escape_ascii());
}
