//! A hostile plugin under another user id: the operating system keeps it out of the host and out of
//! its neighbours, the protocol keeps what it can still write from doing harm.
//!
//! This test binary is executed again as the plugin. Where the test may not switch to another user
//! id it says so, and runs what makes sense without. `RINGWAY_SEED` replays the random choices.
#![allow(unsafe_code, missing_docs)]

mod common;

use std::time::{Duration, Instant};

use common::hostile::some_segment_of;
use common::plugin::{self, KILLED, NEVER, NOBODY};
use common::random::{self, Random};
use common::serving::serving_host;
use ringway::channel::Channel;
use ringway::error::{Corruption, RecvTimeoutError, SendTimeoutError};
use ringway::host::{Host, HostEventKind, PluginSpec, SpawnError};
use ringway::store::StoreOptions;

/// How long the host waits in one call, at most.
const PATIENCE: Duration = Duration::from_micros(200);
/// No call comes back so long after its deadline, however busy the machine is.
const LATE: Duration = Duration::from_secs(10);

/// Where the plugin's process starts; does nothing in the process that runs the tests.
#[test]
fn plugin_entry() {
    plugin::run_role();
}

/// A plugin in this role, under another user id where that is possible.
fn hostile(name: &str, role: &str) -> PluginSpec {
    let spec = plugin::spec_of(name, plugin::command_for_others(role));
    let spec = spec.no_new_privs().grace(Duration::ZERO);
    if plugin::may_switch_user() { spec.run_as(NOBODY, NOBODY) } else { spec }
}

#[test]
fn f16_f25_another_user_reaches_neither_the_host_nor_its_neighbours() {
    if !plugin::may_switch_user() {
        return;
    }
    let options = StoreOptions { capacity_bytes: 1 << 20, ..StoreOptions::default() };
    let host = Host::builder().store(options).build().unwrap();
    let neighbour = plugin::spec_of("neighbour", plugin::command_for_others("read-files"));
    let neighbour = host.spawn(neighbour.run_as(NOBODY - 1, NOBODY - 1)).unwrap();
    let attacker = host.spawn(hostile("attacker", "attack")).unwrap();
    let (mut active, _passive) = attacker.take_channels().unwrap();
    let (own, other) = (std::process::id(), neighbour.pid().unwrap());
    let fds = [own, other].map(some_segment_of);
    active.send_pod(&[own as i32, fds[0], other as i32, fds[1]]).unwrap();
    let report = active.recv_timeout(NEVER).unwrap().to_vec();
    let report = String::from_utf8(report).unwrap();
    let refused = [libc::EPERM, libc::EACCES];
    // The store's descriptor is not open for writing, which some calls say in other words.
    let for_reading = [libc::EPERM, libc::EACCES, libc::EBADF, libc::EINVAL];
    let is_refused = |line: &&str| {
        let errno = line.split(' ').next().unwrap().parse().unwrap();
        refused.contains(&errno) || line.ends_with(" store") && for_reading.contains(&errno)
    };
    let reached: Vec<_> = report.lines().filter(|line| !is_refused(line)).collect();
    assert!(report.lines().count() > 50, "{report}");
    assert_eq!(reached, [""; 0], "all else was refused with {refused:?}");
}

#[test]
fn f14_f15_holes_before_the_seal_are_zeros_and_cuts_are_refused() {
    let host = serving_host();
    let handle = host.spawn(hostile("puncher", "punch-first")).unwrap();
    let (mut active, _passive) = handle.take_channels().unwrap();
    for length in [1, 100, 10_000] {
        let message = vec![9; length];
        active.send(&message).unwrap();
        assert_eq!(active.recv_timeout(NEVER).unwrap().bytes(), message);
    }
}

#[test]
fn f15_another_user_that_forbids_the_seal_is_refused() {
    let error = serving_host().spawn(hostile("sealer", "seal-first")).unwrap_err();
    assert!(matches!(error, SpawnError::Corrupt(Corruption::Seal)), "{error}");
}

/// Uses both directions of a channel that is being scribbled on; false once it has ended.
fn use_once(channel: &mut Channel, random: &mut Random) -> bool {
    let begun = Instant::now();
    let message = [7; 2000];
    let sent = channel.send_timeout(&message[..random.below(2000) as usize], PATIENCE);
    let goes_on = matches!(sent, Ok(()) | Err(SendTimeoutError::Timeout));
    let max = channel.sender().max_message_bytes();
    let received = channel.recv_timeout(PATIENCE);
    let goes_on = goes_on
        && match received {
            Ok(message) => message.len() <= max,
            Err(error) => error == RecvTimeoutError::Timeout,
        };
    assert!(begun.elapsed() < 2 * PATIENCE + LATE, "calls came back after {:?}", begun.elapsed());
    goes_on
}

#[test]
fn f36_f40_what_another_user_scribbles_and_wakes_harms_nobody_else() {
    let plugins = random::number("RINGWAY_PLUGINS").unwrap_or(12);
    let mut random = Random::new(random::seed());
    let host = serving_host();
    let neighbour = plugin::spec_of("neighbour", plugin::command_for_others("echo"));
    let neighbour = host.spawn(neighbour).unwrap();
    let (mut echo, _passive) = neighbour.take_channels().unwrap();
    let (mut calls, mut corrupt) = (0, 0);
    for number in 0..plugins {
        let mut command = plugin::command_for_others("scribble");
        command.env("RINGWAY_TEST_SEED", random.next().to_string());
        let mut spec = plugin::spec_of(format!("scribbler-{number}"), command);
        spec = spec.grace(Duration::ZERO).no_new_privs();
        if plugin::may_switch_user() {
            spec = spec.run_as(NOBODY, NOBODY);
        }
        let handle = host.spawn(spec).unwrap();
        let (mut active, mut passive) = handle.take_channels().unwrap();
        active.send(b"begin").unwrap();
        for _ in 0..500 {
            calls += 1;
            if !use_once(&mut active, &mut random) && !use_once(&mut passive, &mut random) {
                corrupt += 1;
                break;
            }
        }
        echo.send(b"still there?").unwrap();
        assert_eq!(echo.recv_timeout(NEVER).unwrap().bytes(), b"still there?");
        assert_eq!(handle.terminate(), Ok(KILLED));
    }
    println!("{plugins} scribbling plugins, {calls} calls, {corrupt} plugins' channels ended");
    assert!(corrupt > 0, "nothing was found: the plugins are not hostile");
    let deaths = std::iter::from_fn(|| host.next_event(Duration::ZERO))
        .filter(|event| event.plugin == "neighbour")
        .filter(|event| matches!(event.kind, HostEventKind::Died { .. }));
    assert_eq!(deaths.count(), 0);
}
