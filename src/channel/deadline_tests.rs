//! Deadlines hold against a peer that ends every wait by flipping the word that is waited for.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::{Channel, ChannelOptions};
use crate::error::{RecvTimeoutError, SendTimeoutError};
use crate::layout::ring;
use crate::memory::{Memory, Ordering};

/// Both sides of a channel whose first side believes in successors; and a hostile peer that flips
/// this word, of the first side's segment, until the sender is dropped.
fn with_flipped(word: u64) -> (Channel, Channel, mpsc::Sender<()>) {
    let options = ChannelOptions { capacity_bytes: 4096, ..ChannelOptions::default() };
    let (host, plugin) = Channel::pair(&options).expect("a channel");
    host.connection().follow();
    let memory = plugin.connection().memory().clone();
    let (stop, stopped) = mpsc::channel();
    thread::spawn(move || {
        while stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {
            for value in [1, 0].repeat(1000) {
                memory.store_u32(word, value, Ordering::Relaxed);
            }
        }
    });
    (host, plugin, stop)
}

#[test]
fn a_receiver_keeps_its_deadline_while_the_sender_closes_and_opens() {
    let word = ring::CONTROL[1] + ring::PRODUCER_CLOSED;
    let (mut host, _plugin, _stop) = with_flipped(word);
    let found = host.recv_timeout(Duration::from_millis(5)).map(|m| m.len());
    assert_eq!(found, Err(RecvTimeoutError::Timeout));
}

#[test]
fn a_sender_keeps_its_deadline_while_the_receiver_closes_and_opens() {
    let word = ring::CONTROL[0] + ring::CONSUMER_CLOSED;
    let (mut host, _plugin, _stop) = with_flipped(word);
    while host.try_send(&[0; 100]).is_ok() {}
    let found = host.send_timeout(&[0; 100], Duration::from_millis(5));
    assert_eq!(found, Err(SendTimeoutError::Timeout));
}
