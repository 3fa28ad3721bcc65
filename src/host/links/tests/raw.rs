//! A process that speaks the broker's language without a desk, as its host tells it to.
//!
//! This test binary is executed again as the plugin.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::env;
use std::fmt::Debug;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process;
use std::sync::Arc;
use std::thread;

use super::{NEVER, to_listen};
use crate::channel::Channel;
use crate::error::RecvError;
use crate::host::links::Kind;
use crate::host::links::wire::{
    Ask, EndId, Letter, ListAsk, MAX_LETTER_BYTES, OP_ANSWER, OP_CONNECT, OP_LIST, OP_LISTEN,
    OP_OVER,
};
use crate::host::{Host, Plugin, PluginHandle, PluginSpec, Stdio};
use crate::os::eventfd::EventFd;
use crate::os::post;
use crate::wakeup::WaitStrategy;

const ROLE: &str = "RINGWAY_TEST_LINKS";

/// Where the plugin's process starts; does nothing in the process that runs the tests.
#[test]
fn plugin_entry() {
    if env::var_os(ROLE).is_some() {
        obey();
        process::exit(0);
    }
}

/// Does what each message says, and answers with what came of it.
fn obey() {
    let plugin = Plugin::connect().unwrap();
    let (mut active, _passive) = plugin.take_channels().unwrap();
    let client = Arc::clone(plugin.service.as_ref().unwrap());
    let socket = plugin.links.raw_post();
    let silence = EventFd::new().unwrap();
    let mut files: HashMap<EndId, OwnedFd> = HashMap::new();
    let mut channels = Vec::new();
    loop {
        let order = match active.recv_owned() {
            Ok(message) => String::from_utf8(message.to_vec()).unwrap(),
            // Without looking at what may have been closed behind its back.
            Err(RecvError::Disconnected) => process::exit(0),
            Err(error) => panic!("{error}"),
        };
        let mut words = order.split(' ');
        let what = words.next().unwrap();
        let rest: Vec<_> = words.collect();
        let number = |at: usize| rest[at].parse::<u64>().unwrap();
        let end = || EndId { link: number(0), side: number(1) as usize };
        let call = |op, payload: &[u8]| match client.call(op, payload, NEVER) {
            Ok(reply) => {
                let word = reply.payload.first_chunk().map_or(0, |word| u64::from_ne_bytes(*word));
                format!("{} {word}", reply.status)
            }
            Err(error) => format!("{error:?}"),
        };
        let answer = match what {
            "listen" => call(OP_LISTEN, &to_listen(Kind::Channel, rest[0]).to_bytes()),
            "connect" => {
                let ask = Ask { token: 1 << 33, ..to_listen(Kind::Channel, rest[0]) };
                call(OP_CONNECT, &ask.to_bytes())
            }
            "read" => {
                post::wait_for_either(Some(socket.as_fd()), silence.descriptor().as_fd());
                let mut room = [0; MAX_LETTER_BYTES];
                match post::receive(socket.as_fd(), &mut room) {
                    Ok((0, _)) => "the end".into(),
                    Ok((len, file)) => {
                        let letter = Letter::of(&room[..len]).unwrap();
                        files.extend(file.map(|file| (letter.end, file)));
                        format!("{:?} {} {}", letter.what, letter.end.link, letter.end.side)
                    }
                    Err(error) => format!("{error:?}"),
                }
            }
            "attach" => {
                let file = files[&end()].try_clone().unwrap();
                told(
                    Channel::attach_side(file, end().side, None, WaitStrategy::default())
                        .map(|channel| channels.push(channel)),
                )
            }
            "answer" => call(OP_ANSWER, &end().to_bytes(number(2) as u32)),
            "over" => call(OP_OVER, &end().to_bytes(0)),
            "punch" => punch(&files[&end()], number(2)),
            "forbid" => {
                let seal = libc::F_SEAL_SEAL;
                // SAFETY: the call takes numbers.
                let result =
                    unsafe { libc::fcntl(files[&end()].as_raw_fd(), libc::F_ADD_SEALS, seal) };
                if result == 0 { "done".into() } else { "not done".into() }
            }
            "flood" => {
                let client = Arc::clone(&client);
                let list = ListAsk { kind: Kind::Channel, name: String::new(), id: 0 };
                let flood = move || while client.call(OP_LIST, &list.to_bytes(), NEVER).is_ok() {};
                for _ in 0..4 {
                    thread::spawn(flood.clone());
                }
                "floods".into()
            }
            "close" => {
                // SAFETY: marks nothing and frees nothing; what this process does with its descriptors
                // from here on fails.
                unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
                "closed".into()
            }
            other => other.into(),
        };
        active.send(answer.as_bytes()).unwrap();
    }
}

fn told<T, E: Debug>(result: Result<T, E>) -> String {
    result.map_or_else(|error| format!("{error:?}"), |_| "done".into())
}

/// Punches a hole from `from` on.
fn punch(file: &OwnedFd, from: u64) -> String {
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: the call takes numbers.
    let result = unsafe { libc::fallocate(file.as_raw_fd(), mode, from as i64, 1 << 20) };
    if result == 0 {
        "done".into()
    } else {
        format!("{:?}", std::io::Error::last_os_error().kind())
    }
}

/// A plugin that does what it is told.
pub(super) struct Raw {
    pub(super) handle: PluginHandle,
    pub(super) active: Channel,
}

impl Raw {
    pub(super) fn start(host: &Host, name: &str) -> Self {
        let entry = "host::links::tests::raw::plugin_entry";
        let spec = PluginSpec::new(name, env::current_exe().unwrap())
            .args(["--exact", entry, "--nocapture", "--test-threads=1"])
            .env(ROLE, "raw")
            .stdout(Stdio::null())
            .ready_timeout(NEVER);
        let handle = host.spawn(spec).unwrap();
        let (active, _passive) = handle.take_channels().unwrap();
        Self { handle, active }
    }

    pub(super) fn tell(&mut self, order: &str) -> String {
        self.active.send(order.as_bytes()).unwrap();
        String::from_utf8(self.active.recv_timeout(NEVER).unwrap().to_vec()).unwrap()
    }

    /// Reads the next letter, and attaches and answers where it is an offer.
    pub(super) fn take(&mut self) -> String {
        let letter = self.tell("read");
        if let Some(end) = letter.strip_prefix("Offer ") {
            assert_eq!(self.tell(&format!("attach {end}")), "done");
            assert_eq!(self.tell(&format!("answer {end} 0")), "0 0");
        }
        letter
    }

    pub(super) fn kill(self) {
        self.handle.kill().unwrap();
        self.handle.wait_exit(NEVER).unwrap();
    }
}
