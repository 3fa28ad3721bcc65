//! Plugins of a live host, killed with SIGKILL at random instants.
//!
//! What must hold: every message is answered, in order; answers come again only for messages that the
//! host carried over. There are a hundredth as many kills as `RINGWAY_KILLS` says, 20 unless it is set;
//! `RINGWAY_SEED` replays the choices. How fast deaths were noticed is printed.
#![allow(unsafe_code, missing_docs)]

mod common;

use std::time::{Duration, Instant};

use common::plugin::{self, NEVER};
use common::random::{self, Random};
use ringway::error::{ExitReason, RecvTimeoutError, SendError};
use ringway::host::{Host, HostEventKind, Restart};

/// Where the plugin's process starts; does nothing in the process that runs the tests.
#[test]
fn plugin_entry() {
    plugin::run_role();
}

#[test]
fn plugins_killed_at_random_lose_nothing() {
    const WINDOW: u64 = 64;
    let kills = random::number("RINGWAY_KILLS").unwrap_or(2_000_u64).div_ceil(100);
    let mut random = Random::new(random::seed());
    let host = Host::builder().build().unwrap();
    let restart = Restart::OnFailure {
        max_restarts: u32::MAX,
        backoff_initial: Duration::ZERO,
        backoff_max: Duration::ZERO,
    };
    let handle = host.spawn(plugin::spec("victim", "echo").restart(restart)).unwrap();
    let (active, _) = handle.take_channels().unwrap();
    let (mut sender, mut receiver) = active.split();
    let (mut sent, mut answered, mut again, mut told) = (0_u64, 0, 0, 0);
    let mut next_kill = random.below(2_000);
    let mut killed = 0;
    let (mut killed_at, mut noticed, mut ready) = (Vec::new(), Vec::new(), Vec::new());
    while killed < kills || answered < sent {
        if killed < kills && sent - answered < WINDOW {
            match sender.send(&sent.to_ne_bytes()) {
                Ok(()) => sent += 1,
                Err(SendError::Restarted { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        } else {
            match receiver.recv_timeout(NEVER) {
                Ok(message) => {
                    let number = u64::from_ne_bytes(message.bytes().try_into().unwrap());
                    assert!(number <= answered, "{answered} has been lost");
                    again += u64::from(number < answered);
                    answered += u64::from(number == answered);
                }
                Err(RecvTimeoutError::Restarted { .. }) => told += 1,
                Err(error) => panic!("{error}"),
            }
        }
        // The next one only when the receiver has heard of the last one, and has a successor: a start that is killed
        // fails, and nobody has died.
        let is_due = answered >= next_kill && killed < kills && told == killed;
        if is_due && handle.pid().is_some() && handle.kill().is_ok() {
            killed_at.push(Instant::now());
            killed += 1;
            next_kill = answered + random.below(2_000);
        }
    }
    let mut carried_over = 0;
    let patience = |noticed: usize| if noticed < killed_at.len() { NEVER } else { Duration::ZERO };
    while let Some(event) = host.next_event(patience(noticed.len())) {
        match event.kind {
            HostEventKind::Restarted { carried, downtime, .. } => {
                carried_over += carried;
                ready.push(downtime);
            }
            HostEventKind::Died { reason, .. } => {
                assert_eq!(reason, ExitReason::Signal(libc::SIGKILL));
                noticed.push(event.at.duration_since(killed_at[noticed.len()]));
            }
            // It was killed again before it was ready.
            HostEventKind::Started { .. } | HostEventKind::StartFailed { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(again <= carried_over, "{again} answers came again, {carried_over} were carried over");
    assert_eq!(noticed.len(), killed_at.len());
    for (what, times) in [("killed to noticed", &mut noticed), ("noticed to ready", &mut ready)] {
        times.sort_unstable();
        let at = |share: usize| times[(times.len() - 1) * share / 100];
        println!("{what}: p50 {:?}, p99 {:?}, of {}", at(50), at(99), times.len());
    }
    println!("{killed} plugins killed, {answered} answers in order, {again} came again");
}
