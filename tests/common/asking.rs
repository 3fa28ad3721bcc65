//! Plugins that ask their host for something, rightly or not.

use std::process;
use std::sync::Arc;
use std::thread;

use ringway::error::RecvError;
use ringway::host::{Plugin, RequestError, StopCause};

use super::hostile::map_again;
use super::plugin::{NEVER, hang, ignore_sigterm};
use super::spoiling::{announced, bare_producer};

/// How an obedient plugin ends that has been told to.
pub fn exit_code(cause: StopCause) -> i32 {
    match cause {
        StopCause::Shutdown => 40,
        StopCause::Restart => 41,
        _ => 42,
    }
}

/// Does what it is told by messages, and answers the others; ends when its host tells it to.
pub fn obey() {
    let control = map_again("control");
    let bell = announced("bell");
    let plugin = Arc::new(Plugin::connect().unwrap());
    let (mut active, _passive) = plugin.take_channels().unwrap();
    {
        let plugin = Arc::clone(&plugin);
        thread::spawn(move || {
            let told = plugin.wait_for_stop(NEVER).expect("in time");
            assert_eq!(plugin.stop_requested(), Some(told));
            process::exit(exit_code(told.cause));
        });
    }
    loop {
        let message = match active.recv_owned() {
            Ok(message) => String::from_utf8(message.to_vec()).unwrap(),
            Err(RecvError::Disconnected) => return,
            Err(error) => panic!("{error}"),
        };
        let (order, words) = message.split_once(':').unwrap_or((&message, ""));
        match order {
            "restart" | "restart-and-exit" => {
                active.receiver().release();
                plugin.request_restart(words).unwrap();
                match order {
                    "restart" => hang(),
                    _ => process::exit(0),
                }
            }
            "end" => plugin.request_stop(words).unwrap(),
            "bad" => {
                let tag = words.parse().unwrap();
                bare_producer(&control).try_push(tag, &[b'x'; 300]).unwrap();
                ring(bell);
            }
            "restart-unrung" => {
                active.receiver().release();
                bare_producer(&control).try_push(3, words.as_bytes()).unwrap();
                process::exit(0);
            }
            "ring" => ring(bell),
            _ => {}
        }
        active.send(message.as_bytes()).unwrap();
    }
}

/// Closes its channels when it is told to stop, and then takes its time.
pub fn close_first() {
    let plugin = Plugin::connect().unwrap();
    let channels = plugin.take_channels().unwrap();
    plugin.wait_for_stop(NEVER).expect("in time");
    drop(channels);
    hang();
}

fn ring(bell: i32) {
    let one = 1_u64.to_ne_bytes();
    // SAFETY: eight bytes that outlive the call; the number is that of a descriptor, or of none.
    unsafe { libc::write(bell, one.as_ptr().cast(), 8) };
}

/// Asks for a restart, without end, as soon as it is ready.
pub fn flood_requests() {
    ignore_sigterm();
    let control = map_again("control");
    let bell = announced("bell");
    let plugin = Plugin::connect().unwrap();
    let _channels = plugin.take_channels().unwrap();
    let mut producer = bare_producer(&control);
    loop {
        let _ = producer.try_push(3, b"again");
        ring(bell);
    }
}

/// Every way in which asking can fail.
pub fn request_errors() {
    let plugin = Plugin::connect().unwrap();
    assert_eq!(plugin.request_restart("early"), Err(RequestError::NotReady));
    assert_eq!(plugin.stop_requested(), None);
    let _channels = plugin.take_channels().unwrap();
    let too_long = RequestError::TooLong { len: 257, max: 256 };
    assert_eq!(plugin.request_stop(&"x".repeat(257)), Err(too_long));
    plugin.request_stop(&"x".repeat(256)).unwrap();
    assert_eq!(plugin.request_restart("twice"), Err(RequestError::AlreadyMade));
    let told = plugin.wait_for_stop(NEVER).expect("in time");
    process::exit(exit_code(told.cause));
}

/// Starts this very program again, as a plugin might, and says how that went.
pub fn start_a_child() {
    let plugin = Plugin::connect().unwrap();
    let (mut active, _passive) = plugin.take_channels().unwrap();
    let output = super::plugin::command("child-of-plugin").output().unwrap();
    active.send(&output.stderr).unwrap();
    hang();
}

/// Inherits the variable, and not the descriptors.
pub fn child_of_plugin() {
    eprintln!("{}", Plugin::connect().unwrap_err());
}
