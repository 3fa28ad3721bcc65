//! Callers and servers over plain channels, in one process.
//!
//! `gone`: functions and callees that are there no longer, and what panics on the way.

mod gone;

use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::lookup::Connect;
use super::*;
use crate::channel::{Channel, ChannelOptions};
use crate::host::links::{Link, LinkError};
use crate::sync::Mutex;
use crate::typed::{Archived, Pod};

/// Longer than anything takes that is not stuck.
const NEVER: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_millis(20);

/// Links a client with one server.
#[derive(Debug)]
struct Direct {
    server: Arc<Server>,
    options: ChannelOptions,
    linked: Mutex<u64>,
}

impl Connect for Direct {
    fn connect(&self, function: &str, _: Duration) -> Result<Link, LinkError> {
        if !self.server.functions().iter().any(|name| name == function) {
            return Err(LinkError::Unknown { name: function.into() });
        }
        let mut linked = self.linked.lock().unwrap();
        if *linked > 0 {
            return Err(LinkError::Linked { id: *linked });
        }
        *linked += 1;
        let (near, far) = Channel::pair(&self.options)?;
        self.server.serve(far, "caller");
        let note = self.server.identity().to_ne_bytes().to_vec();
        Ok(Link { id: *linked, channel: near, peer: String::new(), note })
    }
}

fn small() -> ChannelOptions {
    ChannelOptions { capacity_bytes: 4096, max_message_bytes: 1 << 20, ..ChannelOptions::default() }
}

fn client_of(server: &Arc<Server>, options: ChannelOptions) -> Client {
    let server = Arc::clone(server);
    Client::with(Box::new(Direct { server, options, linked: Mutex::new(0) }))
}

fn start(builder: ServerBuilder) -> (Arc<Server>, Client) {
    let server = Arc::new(builder.start().unwrap());
    let client = client_of(&server, ChannelOptions::default());
    (server, client)
}

fn upper(request: &Request<'_>) -> Result<Vec<u8>, Failure> {
    Ok(request.to_ascii_uppercase())
}

#[test]
fn a_function_is_called_by_name_by_handle_and_later() {
    let (_server, client) = start(ServerBuilder::new(None).function("upper", upper));
    assert_eq!(client.call("upper", b"hello", NEVER).unwrap(), b"HELLO");
    let mut function = client.function("upper");
    for text in [&b"a"[..], b"", b"bcd"] {
        let result = function.call(text, NEVER).unwrap();
        assert_eq!(result, text.to_ascii_uppercase());
    }
    let mut calls: Vec<_> =
        (0..100_u32).map(|n| client.start("upper", &n.to_ne_bytes(), NEVER).unwrap()).collect();
    for (n, call) in calls.iter_mut().enumerate().rev() {
        assert_eq!(call.wait(NEVER).unwrap(), (n as u32).to_ne_bytes().to_ascii_uppercase());
        assert!(matches!(call.wait(NEVER), Err(CallError::Over)));
    }
    let missing = client.call("lower", b"", NEVER);
    assert!(matches!(missing, Err(CallError::Unknown { name }) if name == "lower"));
}

#[test]
fn errors_of_the_function_are_the_callers() {
    let builder = ServerBuilder::new(None)
        .function("fail", |request: &Request<'_>| Err::<Vec<u8>, _>(Failure::from(request.bytes())))
        .function("panic", |request: &Request<'_>| -> Result<[u8; 0], Failure> {
            panic!("because of {}", request.len())
        })
        .function("long", |_: &Request<'_>| Ok(vec![0; 17 << 20]));
    let (server, client) = start(builder);
    for _ in 0..3 {
        let failed = client.call("fail", b"why", NEVER);
        assert!(matches!(failed, Err(CallError::Failed(why)) if why.as_text() == Some("why")));
        let panicked = client.call("panic", b"four", NEVER);
        let Err(CallError::Panicked { message }) = panicked else { panic!("{panicked:?}") };
        assert_eq!(message, "because of 4");
        let long = client.call("long", b"", NEVER);
        assert!(
            matches!(long, Err(CallError::ResultTooLong { len, max }) if len == 17 << 20 && max < len),
            "{long:?}"
        );
    }
    let too_long = client.call("fail", &vec![0; 16 << 20], NEVER);
    assert!(matches!(too_long, Err(CallError::TooLong { max, .. }) if max < 16 << 20));
    assert_eq!(server.stats().panics, 3);
}

#[test]
fn values_are_checked_before_anything_is_called() {
    type Sum = Pod<u64>;
    let builder = ServerBuilder::new(None)
        .typed::<Pod<[u64; 2]>, Sum>("add", |[a, b], _| {
            a.checked_add(b).ok_or_else(|| Failure::typed::<Pod<u32>>(&7).unwrap())
        })
        .typed::<Archived<Vec<String>>, Archived<String>>("join", |words, _| {
            let words: Vec<&str> = words.iter().map(|word| word.as_str()).collect();
            Ok(words.join(" "))
        });
    let (_server, client) = start(builder);
    for _ in 0..2 {
        let sum = client.call_typed::<Pod<[u64; 2]>, Sum>("add", &[1, 2], NEVER);
        assert_eq!(sum.unwrap(), 3);
        let failed = client.call_typed::<Pod<[u64; 2]>, Sum>("add", &[1, u64::MAX], NEVER);
        let Err(CallError::Failed(failure)) = failed else { panic!("{failed:?}") };
        assert_eq!(failure.decode::<Pod<u32>>().unwrap(), 7);
        let wrong = client.call_typed::<Pod<[u32; 2]>, Sum>("add", &[1, 2], NEVER);
        let Err(CallError::WrongTypes { .. }) = wrong else { panic!("{wrong:?}") };
        let text = wrong.unwrap_err().to_string();
        assert!(text.contains("is called with [u32; 2]") && text.contains("takes other arguments"));
        assert!(!text.contains("0x"), "{text}");
        let wrong = client.call("add", &[0; 16], NEVER);
        assert!(matches!(wrong, Err(CallError::WrongTypes { .. })), "{wrong:?}");
    }
    let words = vec!["one".to_owned(), "two".to_owned()];
    let mut join = client.typed_function::<Archived<Vec<String>>, Archived<String>>("join");
    assert_eq!(join.call(&words, NEVER).unwrap(), "one two");
    let len = join.call_with(&words, NEVER, |text| text.len()).unwrap();
    assert_eq!(len, 7);
    let mut call = client
        .start_typed::<Archived<Vec<String>>, Archived<String>>("join", &words, NEVER)
        .unwrap();
    assert_eq!(call.wait(NEVER).unwrap(), "one two");
}

#[test]
fn many_threads_call_over_one_link() {
    let builder = ServerBuilder::new(None).function_into("echo", |request, result| {
        result.extend_from_slice(request);
        Ok(())
    });
    let server = Arc::new(builder.start().unwrap());
    let client = client_of(&server, small());
    thread::scope(|scope| {
        for thread in 0..6_u64 {
            let client = client.clone();
            scope.spawn(move || {
                let mut echo = client.function("echo");
                for n in 0..500_u64 {
                    // Some of them longer than the ring.
                    let len = if n % 50 == thread { 6000 } else { 16 + (n as usize * 7) % 400 };
                    let mut text = [thread.to_ne_bytes(), n.to_ne_bytes()].concat();
                    text.resize(len, thread as u8);
                    if n % 3 == 0 {
                        let mut call = echo.start(&text, NEVER).unwrap();
                        assert_eq!(call.wait(NEVER).unwrap(), text);
                    } else {
                        assert_eq!(echo.call(&text, NEVER).unwrap(), text);
                    }
                }
            });
        }
    });
    assert_eq!(server.stats().calls, 3000);
}

#[test]
fn nobody_is_stuck_when_all_calls_are_begun_before_any_is_waited_for() {
    let builder =
        ServerBuilder::new(None).function("echo", |request: &Request<'_>| Ok(request.to_vec()));
    let server = Arc::new(builder.start().unwrap());
    let client = client_of(&server, small());
    // Both rings fill up: neither arguments nor results fit at once.
    let text = |n: usize| vec![n as u8; 200 + 37 * (n % 130)];
    let mut calls: Vec<_> =
        (0..400).map(|n| client.start("echo", &text(n), NEVER).unwrap()).collect();
    for (n, call) in calls.iter_mut().enumerate() {
        assert_eq!(call.wait(NEVER).unwrap(), text(n));
    }
}

/// A function that waits until it is let go, and says when it has begun.
fn gate() -> (ServerBuilder, mpsc::Receiver<()>, mpsc::Sender<()>) {
    let (begun, has_begun) = mpsc::channel();
    let (go, may_go) = mpsc::channel();
    let builder = ServerBuilder::new(None).function("gate", move |_: &Request<'_>| {
        begun.send(()).unwrap();
        may_go.recv().unwrap();
        Ok([])
    });
    (builder, has_begun, go)
}

#[test]
fn a_call_that_is_given_up_before_it_begins_never_does() {
    let (builder, has_begun, go) = gate();
    let (called, calls) = mpsc::channel();
    let builder = builder.function("note", move |request: &Request<'_>| {
        called.send(request.to_vec()).unwrap();
        Ok([])
    });
    let (server, client) = start(builder);
    client.call("note", b"first", NEVER).unwrap();
    let mut busy = client.start("gate", b"", NEVER).unwrap();
    has_begun.recv().unwrap();
    let kept = client.start("note", b"kept", NEVER).unwrap();
    drop(client.start("note", b"dropped", NEVER).unwrap());
    let late = client.call("note", b"late", SOON);
    assert!(matches!(late, Err(CallError::Timeout { .. })), "{late:?}");
    let mut last = client.start("note", b"last", NEVER).unwrap();
    go.send(()).unwrap();
    busy.wait(NEVER).unwrap();
    last.wait(NEVER).unwrap();
    drop(kept);
    let seen: Vec<_> = calls.try_iter().collect();
    assert_eq!(seen, [&b"first"[..], b"kept", b"last"]);
    assert_eq!(server.stats().skipped, 2);
}

#[test]
fn a_function_that_runs_learns_that_nobody_waits_any_more() {
    let (begun, has_begun) = mpsc::channel();
    let builder = ServerBuilder::new(None).function("patient", move |request: &Request<'_>| {
        begun.send(()).unwrap();
        while !request.is_cancelled() {
            thread::yield_now();
        }
        Ok([])
    });
    let (server, client) = start(builder.function("upper", upper));
    // A name is looked up by the server's thread.
    client.call("upper", b"", NEVER).unwrap();
    let given_up = client.start("patient", b"", NEVER).unwrap();
    has_begun.recv().unwrap();
    let mut behind = client.start("upper", b"x", NEVER).unwrap();
    drop(given_up);
    assert_eq!(behind.wait(NEVER).unwrap(), b"X");
    // One that times out.
    let late = client.call("patient", b"", SOON);
    assert!(matches!(late, Err(CallError::Timeout { .. })), "{late:?}");
    assert_eq!(client.call("upper", b"y", NEVER).unwrap(), b"Y");
    // One whose caller is gone.
    let call = client.start("patient", b"", NEVER).unwrap();
    (0..2).for_each(|_| has_begun.recv().unwrap());
    std::mem::forget(call);
    let other = client_of(&server, ChannelOptions::default());
    drop(client);
    // The forgotten call has the link, which is closed by nobody: the server's stop ends it.
    drop(other);
    server_stops(server);
}

fn server_stops(server: Arc<Server>) {
    let server = Arc::into_inner(server);
    assert!(server.is_none_or(|server| server.stop(NEVER).is_ok()));
}

#[test]
fn who_waits_is_told_that_the_server_has_stopped() {
    let (builder, has_begun, go) = gate();
    let (server, client) = start(builder.function("upper", upper));
    client.call("upper", b"", NEVER).unwrap();
    let mut running = client.start("gate", b"", NEVER).unwrap();
    has_begun.recv().unwrap();
    let mut behind = client.start("upper", b"", NEVER).unwrap();
    let stopping = thread::spawn({
        let server = Arc::clone(&server);
        move || server.stop_by(NEVER)
    });
    go.send(()).unwrap();
    stopping.join().unwrap().unwrap();
    let running = running.wait(NEVER);
    assert!(matches!(running, Ok(_) | Err(CallError::Died)), "{running:?}");
    let behind = behind.wait(NEVER);
    assert!(matches!(behind, Ok(_) | Err(CallError::Died)), "{behind:?}");
}

#[test]
fn a_server_that_is_drained_answers_what_was_asked() {
    let (builder, has_begun, go) = gate();
    let (server, client) = start(builder.function("upper", upper));
    client.call("upper", b"", NEVER).unwrap();
    let mut running = client.start("gate", b"", NEVER).unwrap();
    has_begun.recv().unwrap();
    let mut behind: Vec<_> =
        (0..100).map(|_| client.start("upper", b"x", NEVER).unwrap()).collect();
    let draining = thread::spawn(move || {
        // The client's connector has the other.
        server.drain_by(NEVER)
    });
    go.send(()).unwrap();
    draining.join().unwrap().unwrap();
    running.wait(NEVER).unwrap();
    for call in &mut behind {
        assert_eq!(call.wait(NEVER).unwrap(), b"X");
    }
    let after = client.call("upper", b"x", NEVER);
    assert!(after.is_err(), "{after:?}");
}

#[test]
fn a_server_that_waits_for_the_caller_is_not_called() {
    // A calls B, which calls A.
    let (first, second) = (ServerBuilder::new(None), ServerBuilder::new(None));
    let second = Arc::new(second.function("upper", upper).start().unwrap());
    let to_second = client_of(&second, ChannelOptions::default());
    let first = first.function("through", move |request: &Request<'_>| {
        let result = to_second.call("back", request, NEVER);
        result.map_err(|error| Failure::from(format!("{error}")))
    });
    let first = Arc::new(first.function("upper", upper).start().unwrap());
    let to_first = client_of(&first, ChannelOptions::default());
    let back = to_first.clone();
    second
        .add("back", move |request: &Request<'_>| {
            let result = back.call(std::str::from_utf8(request).unwrap(), b"x", NEVER);
            result.map_err(|error| Failure::from(format!("{error}")))
        })
        .unwrap();
    for _ in 0..2 {
        let failed = to_first.call("through", b"upper", NEVER);
        let Err(CallError::Failed(why)) = failed else { panic!("{failed:?}") };
        assert!(why.as_text().unwrap().contains("waits for this very thread"), "{why:?}");
        // Neither is stuck, and a call that begins at B may go to A.
        assert_eq!(to_first.call("upper", b"a", NEVER).unwrap(), b"A");
        let to_second = client_of(&second, ChannelOptions::default());
        assert_eq!(to_second.call("back", b"upper", NEVER).unwrap(), b"X");
    }
}

#[test]
fn a_function_may_drop_its_own_server_from_its_own_thread() {
    let slot = Arc::new(Mutex::new(None::<Server>));
    let builder = ServerBuilder::new(None).function("end", {
        let slot = Arc::clone(&slot);
        move |_: &Request<'_>| {
            drop(slot.lock().unwrap().take());
            Ok(*b"done")
        }
    });
    let server = builder.start().unwrap();
    let (near, far) = Channel::pair(&ChannelOptions::default()).unwrap();
    server.serve(far, "");
    let note = server.identity().to_ne_bytes().to_vec();
    *slot.lock().unwrap() = Some(server);
    #[derive(Debug)]
    struct Once(Mutex<Option<Link>>);
    impl Connect for Once {
        fn connect(&self, name: &str, _: Duration) -> Result<Link, LinkError> {
            self.0.lock().unwrap().take().ok_or(LinkError::Unknown { name: name.into() })
        }
    }
    let link = Link { id: 1, channel: near, peer: String::new(), note };
    let client = Client::with(Box::new(Once(Mutex::new(Some(link)))));
    assert_eq!(client.call("end", b"", NEVER).unwrap(), b"done");
}
