//! Plugins that use their service channel, rightly or not.

use std::thread;
use std::time::Duration;

use ringway::error::RecvError;
use ringway::host::frame::{Header, MAX_REPLY_BYTES, OP_ECHO, OP_STORE_WRITE};
use ringway::host::{Host, Plugin};
use ringway::layout::ring;
use ringway::memory::{Memory, Ordering};

use super::hostile::map_again;
use super::plugin::{self, NEVER, hang, raise};
use super::spoiling::bare_producer;

/// A host that answers pings.
pub fn serving_host() -> Host {
    Host::builder().answer_pings().build().unwrap()
}

/// An echo request of this length.
pub fn request(id: u64, len: usize) -> Vec<u8> {
    let header = Header { op: OP_ECHO, status: 0, id };
    [&header.to_bytes()[..], &vec![7; len]].concat()
}

/// Pings before it is ready, and then for each message.
pub fn ping() {
    let plugin = Plugin::connect().unwrap();
    let early = plugin.ping(NEVER).map(drop);
    let (mut active, _passive) = plugin.take_channels().unwrap();
    active.send(format!("{early:?}").as_bytes()).unwrap();
    while active.recv_owned().is_ok() {
        // Many threads, one channel.
        let pong = thread::scope(|scope| {
            let threads = [(); 4].map(|()| scope.spawn(|| plugin.ping(NEVER).map(drop)));
            threads.map(|thread| thread.join().unwrap()).into_iter().collect::<Result<(), _>>()
        });
        active.send(format!("{pong:?}").as_bytes()).unwrap();
    }
}

/// Does on its service channel what each message says.
pub fn misuse_service() {
    let segment = map_again("service");
    let is_closed = || {
        let closed = ring::CONTROL[1] + ring::CONSUMER_CLOSED;
        segment.memory().load_u32(closed, Ordering::Acquire) != 0
    };
    let plugin = Plugin::connect().unwrap();
    let (mut active, _passive) = plugin.take_channels().unwrap();
    loop {
        let message = match active.recv_owned() {
            Ok(message) => message,
            Err(RecvError::Disconnected) => return,
            Err(error) => panic!("{error}"),
        };
        active.receiver().release();
        // Its own library knows nothing of what it sends.
        let mut producer = bare_producer(&segment);
        match &*message {
            b"garbage" => {
                producer.try_push(0, b"what?").unwrap();
                // Behind it: its library would write over that.
                while !is_closed() {
                    thread::yield_now();
                }
            }
            // More than it has room for answers to, and it reads none.
            b"flood" => {
                let request = request(1, MAX_REPLY_BYTES);
                while !is_closed() {
                    let _ = producer.try_push(0, &request);
                }
            }
            // To set a key that is longer than the request, and than all keys.
            b"store" => {
                let header = Header { op: OP_STORE_WRITE, status: 0, id: 1 }.to_bytes();
                let payload = [1, 0, u32::MAX, 1, 4].map(u32::to_ne_bytes).concat();
                producer.try_push(0, &[&header[..], &payload].concat()).unwrap();
                while !is_closed() {
                    thread::yield_now();
                }
            }
            b"die" => {
                (0..100).for_each(|id| producer.try_push(0, &request(id, 8)).unwrap());
                raise(libc::SIGKILL);
            }
            _ => {}
        }
        let error = loop {
            // Answers to what it sent behind the library's back are skipped.
            if let Err(error) = plugin.ping(Duration::from_secs(1)) {
                break error;
            }
        };
        active.send(format!("{error:?}").as_bytes()).unwrap();
    }
}

/// A host that is to be killed, of a plugin that pings.
pub fn host_of_a_pinger() {
    let host = serving_host();
    let _plugin = host.spawn(plugin::spec("pinger", "ping-until-gone")).unwrap();
    eprintln!("ready");
    hang();
}

/// Pings until that fails, and says why.
pub fn ping_until_gone() {
    let plugin = Plugin::connect().unwrap();
    plugin.set_host_gone_grace(None);
    let _channels = plugin.take_channels().unwrap();
    let error = loop {
        if let Err(error) = plugin.ping(NEVER) {
            break error;
        }
    };
    eprintln!("{error:?}, then {:?}", plugin.ping(NEVER).unwrap_err());
}
