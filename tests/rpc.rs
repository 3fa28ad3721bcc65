//! Functions of other processes: called, misused, and outlived.
//!
//! This test binary is executed again as the plugin. What always holds: a plugin is ended by its host at
//! the end of each test, also where the test fails.
#![allow(unsafe_code, missing_docs)]

mod common;

use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use common::calling::{LONG, linking_host, wait_until_cancelled, wait_until_stuck};
use common::plugin::{self, NEVER, restarts};
use common::random::{Random, seed};
use ringway::channel::{Channel, ChannelOptions};
use ringway::error::{RecvTimeoutError, TrySendError};
use ringway::host::{Host, LinkError, PluginHandle};
use ringway::rpc::{Breach, CallError, Client, Failure, Request, ServeError, Server};
use ringway::typed::Pod;

const SOON: Duration = Duration::from_millis(20);

/// Where the plugin's process starts; does nothing in the process that runs the tests.
#[test]
fn plugin_entry() {
    plugin::run_role();
}

fn next(channel: &mut Channel) -> String {
    loop {
        match channel.recv_timeout(NEVER) {
            Ok(message) => return String::from_utf8_lossy(&message).into_owned(),
            Err(RecvTimeoutError::Restarted { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

fn ask(channel: &mut Channel, command: &str) -> String {
    while channel.send(command.as_bytes()).is_err() {}
    next(channel)
}

/// A plugin that serves, its passive channel, and a client of it.
fn callee(host: &Host) -> (PluginHandle, Channel, Client) {
    let spec = plugin::spec("callee", "serve-functions").restart(restarts(100));
    let handle = host.spawn(spec).unwrap();
    let (active, passive) = handle.take_channels().unwrap();
    drop(active);
    let client = host.rpc_client().unwrap();
    // The last of its functions.
    client.wait_for("back", NEVER).unwrap();
    (handle, passive, client)
}

/// A plugin that calls, and its active channel.
fn caller(host: &Host, name: &str) -> (PluginHandle, Channel) {
    let handle = host.spawn(plugin::spec(name, "call-functions")).unwrap();
    let (active, passive) = handle.take_channels().unwrap();
    drop(passive);
    (handle, active)
}

fn echo(request: &Request<'_>) -> Result<Vec<u8>, Failure> {
    Ok(request.to_vec())
}

#[test]
fn rpc_any_process_calls_any_other() {
    let host = linking_host();
    let server = host.rpc_server().unwrap();
    let server = server
        .function("whoami", |request: &Request<'_>| Ok(request.caller().to_owned()))
        .start()
        .unwrap();
    let (_callee, _passive, client) = callee(&host);
    let (_caller, mut active) = caller(&host, "caller");
    let pid = client.call("pid", b"", NEVER).unwrap();
    assert_ne!(pid, std::process::id().to_ne_bytes());
    assert_eq!(ask(&mut active, "call whoami "), "caller");
    assert_eq!(ask(&mut active, "call echo from plugin to plugin"), "from plugin to plugin");
    // The host calls itself, too.
    assert_eq!(client.call("whoami", b"", NEVER).unwrap(), b"");
    let long = vec![7; LONG];
    assert_eq!(client.call("echo", &long, NEVER).unwrap(), long);
    server.add("later", echo).unwrap();
    assert_eq!(ask(&mut active, "call later text"), "text");
    server.remove("later").unwrap();
    assert_eq!(ask(&mut active, "call later text"), r#"Unknown { name: "later" }"#);
    let taken = host.rpc_server().unwrap().function("echo", echo).start();
    assert!(
        matches!(&taken, Err(ServeError::Link { source: LinkError::Duplicate { .. }, .. })),
        "{taken:?}"
    );
    server.drain(NEVER).unwrap();
    assert!(ask(&mut active, "call whoami ").starts_with("Unknown"));
}

#[test]
fn rpc_timeout_unknown_function_dead_callee_and_own_error_are_told_apart() {
    let host = linking_host();
    let (_callee, mut passive, client) = callee(&host);
    let late = client.call("wait", b"", SOON);
    assert!(matches!(late, Err(CallError::Timeout { timeout }) if timeout == SOON), "{late:?}");
    assert_eq!([next(&mut passive), next(&mut passive)], ["begun", "cancelled"]);
    let unknown = client.call("no such function", b"", NEVER);
    assert!(matches!(unknown, Err(CallError::Unknown { .. })), "{unknown:?}");
    let failed = client.call("fail", b"own", NEVER);
    assert!(matches!(&failed, Err(CallError::Failed(why)) if why.bytes() == b"own"), "{failed:?}");
    let failed = client.call_typed::<Pod<[u64; 2]>, Pod<u64>>("add", &[1, u64::MAX], NEVER);
    let Err(CallError::Failed(why)) = failed else { panic!("{failed:?}") };
    assert_eq!(why.decode::<Pod<u32>>().unwrap(), 34);
    let panicked = client.call("panic", b"", NEVER);
    assert!(
        matches!(&panicked, Err(CallError::Panicked { message }) if message == "as asked"),
        "{panicked:?}"
    );
    let sum = client.call_typed::<Pod<[u64; 2]>, Pod<u64>>("add", &[1, 2], NEVER);
    assert_eq!(sum.unwrap(), 3);
    let wrong = client.call_typed::<Pod<[u64; 2]>, Pod<i64>>("add", &[1, 2], NEVER);
    assert!(matches!(wrong, Err(CallError::WrongTypes { .. })), "{wrong:?}");
    let died = client.call("die", b"", NEVER);
    assert!(matches!(died, Err(CallError::Died)), "{died:?}");
}

#[test]
fn rpc_after_the_callees_restart_the_next_call_finds_the_successor() {
    let host = linking_host();
    let (_callee, _passive, client) = callee(&host);
    let mut pid = client.function("pid");
    let mut last = pid.call(b"", NEVER).unwrap();
    for _ in 0..5 {
        let died = client.call("die", b"", NEVER);
        assert!(matches!(died, Err(CallError::Died)), "{died:?}");
        client.wait_for("pid", NEVER).unwrap();
        let new = pid.call(b"", NEVER).unwrap();
        assert_ne!(new, last);
        // By name, too: it was looked up with the one before.
        assert_eq!(client.call("pid", b"", NEVER).unwrap(), new);
        last = new;
        // Else the next death may come before all of the functions are there.
        client.wait_for("back", NEVER).unwrap();
    }
}

#[test]
fn rpc_a_callee_that_is_killed_ends_every_wait_for_it() {
    let host = linking_host();
    let (callee, mut passive, client) = callee(&host);
    for _ in 0..3 {
        client.wait_for("back", NEVER).unwrap();
        client.call("echo", b"", NEVER).unwrap();
        thread::scope(|scope| {
            // In the function, waited for by its caller and begun by another.
            let waiting = scope.spawn(|| client.call("wait", b"", NEVER));
            assert_eq!(next(&mut passive), "begun");
            // Between two: not begun.
            let mut behind: Vec<_> =
                (0..3).map(|_| client.start("echo", b"behind", NEVER).unwrap()).collect();
            // In the middle of an argument.
            let midway = scope.spawn(|| client.call("echo", &vec![7; LONG], NEVER));
            wait_until_stuck(&client);
            callee.kill().unwrap();
            let ends = [waiting.join().unwrap(), midway.join().unwrap()];
            for end in ends.into_iter().chain(behind.iter_mut().map(|call| call.wait(NEVER))) {
                // Where the argument was not sent, the successor may have been asked.
                let is_right = match &end {
                    Err(CallError::Died | CallError::Unknown { .. }) => true,
                    Ok(result) => result.len() == LONG,
                    Err(_) => false,
                };
                assert!(is_right, "{end:?}");
            }
        });
    }
}

#[test]
fn rpc_a_caller_that_is_killed_costs_the_server_nothing() {
    let host = linking_host();
    let (mut heard, told) = Channel::pair(&ChannelOptions::default()).unwrap();
    let (tell, _) = told.split();
    let tell = Mutex::new(tell);
    let server = host.rpc_server().unwrap();
    let server = server
        .function("echo", echo)
        .function("block", move |request: &Request<'_>| {
            wait_until_cancelled(request, &tell);
            Ok([])
        })
        .start()
        .unwrap();
    let (_neighbour, mut neighbour) = caller(&host, "neighbour");
    assert_eq!(ask(&mut neighbour, "call echo before"), "before");
    for round in 0..3 {
        // While it waits for an answer.
        let (victim, mut active) = caller(&host, "victim");
        assert_eq!(ask(&mut active, "wait block"), "waits");
        assert_eq!(next(&mut heard), "begun");
        victim.kill().unwrap();
        assert_eq!(next(&mut heard), "cancelled");
        assert_eq!(ask(&mut neighbour, "call echo between"), "between");
        // In the middle of its arguments.
        let (victim, mut active) = caller(&host, "stuck");
        active.send(b"stick block").unwrap();
        assert_eq!(next(&mut heard), "begun");
        assert_eq!(ask(&mut active, "begun"), "stuck");
        victim.kill().unwrap();
        assert_eq!(next(&mut heard), "cancelled");
        assert_eq!(ask(&mut neighbour, &format!("call echo {round}")), round.to_string());
    }
    while server.stats().callers > 1 {
        thread::yield_now();
    }
    assert_eq!(server.stats().dropped, 0);
}

#[test]
fn rpc_a_caller_that_reads_no_answers_is_let_go_of_and_nobody_else_is() {
    let server = Server::builder()
        .patience(SOON)
        .function("echo", echo)
        .function("big", |_: &Request<'_>| Ok([7; 1000]))
        .function("long", |_: &Request<'_>| Ok(vec![7; LONG]))
        .start()
        .unwrap();
    let link = |name| {
        let (near, far) = Channel::pair(&ChannelOptions::default()).unwrap();
        server.serve(far, name);
        near
    };
    let neighbour = Client::over(link("neighbour"));
    for (round, name) in ["big", "long"].into_iter().enumerate() {
        // Its own library would read.
        let mut deaf = link("deaf");
        let question = [name.as_bytes(), &[0; 16], &[1; 8]].concat();
        deaf.sender().send_tagged(2, &question).unwrap();
        let target = deaf.recv_timeout(NEVER).unwrap()[..8].to_vec();
        let call = [&[1; 8], &target[..]].concat();
        loop {
            match deaf.sender().try_send_tagged(1, &call) {
                Ok(()) => {}
                Err(TrySendError::Full) => thread::yield_now(),
                Err(TrySendError::Disconnected) => break,
                Err(error) => panic!("{error}"),
            }
            assert_eq!(neighbour.call("echo", b"meanwhile", NEVER).unwrap(), b"meanwhile");
        }
        assert_eq!(server.stats().dropped, round as u64 + 1);
        assert_eq!(neighbour.call("long", b"", NEVER).unwrap().len(), LONG);
    }
}

#[test]
fn rpc_a_server_that_waits_for_the_caller_is_not_called() {
    let host = linking_host();
    let (_callee, _passive, client) = callee(&host);
    let through = client.clone();
    let server = host.rpc_server().unwrap();
    let _server = server
        .function("home", echo)
        .function("away", move |request: &Request<'_>| {
            through.call("back", request, NEVER).map_err(|error| format!("{error}").into())
        })
        .start()
        .unwrap();
    for _ in 0..3 {
        let failed = client.call("away", b"home", NEVER);
        let Err(CallError::Failed(why)) = &failed else { panic!("{failed:?}") };
        assert!(why.as_text().unwrap().contains("Recursion"), "{why:?}");
        // Neither is busy, and from outside of the circle it may be called.
        assert_eq!(client.call("back", b"home", NEVER).unwrap(), b"round");
    }
}

#[test]
fn rpc_a_forked_child_is_told_that_the_link_is_its_parents() {
    let host = linking_host();
    let (_callee, _passive, client) = callee(&host);
    let mut function = client.function("echo");
    assert_eq!(function.call(b"parent", NEVER).unwrap(), b"parent");
    let pending = client.start("echo", b"pending", NEVER).unwrap();
    // SAFETY: the child touches only what no other thread of the parent holds, and ends at once.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let told = matches!(function.call(b"child", NEVER), Err(CallError::Forked));
        drop(pending);
        // SAFETY: the call takes a number.
        unsafe { libc::_exit(if told { 0 } else { 1 }) };
    }
    let mut status = 0;
    // SAFETY: the pointer is to a local.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0);
    let mut pending = pending;
    assert_eq!(pending.wait(NEVER).unwrap(), b"pending");
    assert_eq!(function.call(b"parent", NEVER).unwrap(), b"parent");
}

#[test]
fn rpc_a_caller_that_writes_garbage_is_let_go_of_and_nobody_else_is() {
    let mut random = Random::new(seed());
    let server = Server::builder().function("echo", echo).start().unwrap();
    let link = |name| {
        let (near, far) = Channel::pair(&ChannelOptions::default()).unwrap();
        server.serve(far, name);
        near
    };
    let neighbour = Client::over(link("neighbour"));
    for round in 0..200_u64 {
        let mut hostile = link("hostile");
        let dropped = server.stats().dropped;
        // Frames of every kind and length, until one is none.
        while server.stats().dropped == dropped {
            let len = random.below(40) as usize;
            let frame: Vec<u8> = (0..len).map(|_| (random.next() >> 7) as u8).collect();
            let tag = random.below(5) as u16;
            match hostile.sender().try_send_tagged(tag, &frame) {
                Ok(()) => {}
                Err(TrySendError::Full) => thread::yield_now(),
                Err(_) => break,
            }
            while hostile.receiver().try_recv().is_ok() {}
        }
        let text = round.to_ne_bytes();
        assert_eq!(neighbour.call("echo", &text, NEVER).unwrap(), text);
    }
    while server.stats().dropped < 200 {
        thread::yield_now();
    }
}

#[test]
fn rpc_a_server_that_writes_garbage_is_an_error() {
    // What a server would say, and what it cannot: the tag, and how long the payload before the id is.
    let known = 22;
    for (tag, payload, right_id) in [
        (16, 4, false),
        (known, 7, true),
        (known, 16, true),
        (99, 0, true),
        (21, 0, true),
        (20, 3, true),
    ] {
        let (near, mut far) = Channel::pair(&ChannelOptions::default()).unwrap();
        let hostile = thread::spawn(move || {
            let question = far.recv_owned().unwrap();
            let id = question.last_chunk::<8>().unwrap();
            let id = if right_id { *id } else { [0xff; 8] };
            let answer = [&vec![0xee; payload][..], &id].concat();
            far.sender().send_tagged(tag, &answer).unwrap();
            // Until the caller has let go of it.
            while far.recv().is_ok() {}
        });
        let client = Client::over(near);
        let broken = client.call("echo", b"", NEVER);
        let is_right = match &broken {
            Err(CallError::Broken(Breach::UnknownCall { .. })) => !right_id || tag == 21,
            Err(CallError::Broken(Breach::NoAnswer { .. })) => right_id,
            _ => false,
        };
        assert!(is_right, "{tag} {payload}: {broken:?}");
        let after = client.call("echo", b"", NEVER);
        assert!(matches!(after, Err(CallError::Link(LinkError::PartnerGone))), "{after:?}");
        drop(client);
        hostile.join().unwrap();
    }
    // Too short for an id.
    let (near, mut far) = Channel::pair(&ChannelOptions::default()).unwrap();
    far.sender().send_tagged(16, b"short").unwrap();
    let broken = Client::over(near).call("echo", b"", NEVER);
    assert!(
        matches!(broken, Err(CallError::Broken(Breach::NoAnswer { tag: 16, len: 5 }))),
        "{broken:?}"
    );
}
