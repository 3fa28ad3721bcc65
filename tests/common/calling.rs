//! Plugins that serve functions, and plugins that call them.

use std::mem;
use std::process;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use ringway::channel::Sender;
use ringway::host::{Host, Plugin};
use ringway::rpc::{CallError, Client, Failure, Request};
use ringway::typed::Pod;

use super::plugin::{NEVER, hang, raise};

/// Longer than a ring of either side.
pub const LONG: usize = 4 << 20;

/// A host that brokers.
pub fn linking_host() -> Host {
    Host::builder().links().build().unwrap()
}

/// Serves functions, until it is ended. What it does is told on the passive channel.
pub fn serve_functions() {
    let plugin = Plugin::connect().unwrap();
    let (_active, passive) = plugin.take_channels().unwrap();
    let (tell, _) = passive.split();
    let tell = Mutex::new(tell);
    let back = plugin.rpc_client().unwrap();
    let server = plugin.rpc_server().unwrap();
    let _server = server
        .function("echo", |request: &Request<'_>| Ok(request.to_vec()))
        .function("pid", |_: &Request<'_>| Ok(process::id().to_ne_bytes()))
        .function("fail", |request: &Request<'_>| Err::<[u8; 0], _>(Failure::from(request.bytes())))
        .function("panic", |_: &Request<'_>| -> Result<[u8; 0], Failure> { panic!("as asked") })
        .function("die", |_: &Request<'_>| -> Result<[u8; 0], Failure> {
            raise(libc::SIGKILL);
            hang()
        })
        .typed::<Pod<[u64; 2]>, Pod<u64>>("add", |[a, b], _| {
            a.checked_add(b).ok_or_else(|| Failure::typed::<Pod<u32>>(&34).unwrap())
        })
        .function("wait", move |request: &Request<'_>| {
            wait_until_cancelled(request, &tell);
            Ok([])
        })
        .function("back", move |request: &Request<'_>| {
            let name = String::from_utf8_lossy(request).into_owned();
            back.call(&name, b"round", NEVER).map_err(|error| format!("{error:?}").into())
        })
        .start()
        .unwrap();
    hang();
}

/// A function that tells when it has begun, and when nobody waits for it any more.
pub fn wait_until_cancelled(request: &Request<'_>, tell: &Mutex<Sender>) {
    let mut tell = tell.lock().unwrap();
    tell.send(b"begun").unwrap();
    while !request.is_cancelled() {
        thread::yield_now();
    }
    tell.send(b"cancelled").unwrap();
}

/// Returns when a thread of this process is in the middle of a request for which there is no room.
pub fn wait_until_stuck(client: &Client) {
    loop {
        match client.start("echo", b"", Duration::ZERO) {
            Err(CallError::Full { .. }) => return,
            // Not yet.
            other => mem::forget(other),
        }
        thread::yield_now();
    }
}

/// Calls what each message says, and answers with what came of it.
pub fn call_functions() {
    let plugin = Plugin::connect().unwrap();
    let (mut active, _passive) = plugin.take_channels().unwrap();
    let client = plugin.rpc_client().unwrap();
    while let Ok(message) = active.recv_owned() {
        let text = String::from_utf8_lossy(&message).into_owned();
        let mut words = text.splitn(3, ' ').map(str::to_owned);
        let [what, name, argument] = [(); 3].map(|()| words.next().unwrap_or_default());
        let calling = client.clone();
        let result = match what.as_str() {
            "call" => match client.call(&name, argument.as_bytes(), NEVER) {
                Ok(result) => String::from_utf8_lossy(&result).into_owned(),
                Err(error) => format!("{error:?}"),
            },
            // It waits for an answer until it is killed.
            "wait" => {
                thread::spawn(move || calling.call(&name, b"", NEVER));
                "waits".into()
            }
            // It is in the middle of its arguments until it is killed.
            "stick" => {
                client.call("echo", b"", NEVER).unwrap();
                let waiting = client.clone();
                thread::spawn(move || waiting.call(&name, b"", NEVER));
                // Told when the function has begun.
                active.recv_owned().unwrap();
                thread::spawn(move || calling.call("echo", &vec![7; LONG], NEVER));
                wait_until_stuck(&client);
                "stuck".into()
            }
            other => panic!("unknown command {other}"),
        };
        active.send(result.as_bytes()).unwrap();
    }
}
