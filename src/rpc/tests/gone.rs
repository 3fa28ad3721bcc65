//! Functions and callees that are there no longer, and what panics on the way.

use super::super::frame::RESOLVE;
use super::*;

#[test]
fn functions_come_and_go_while_others_are_called() {
    let (server, client) = start(ServerBuilder::new(None).function("upper", upper));
    for round in 0..50_u32 {
        server.add("round", move |_: &Request<'_>| Ok(round.to_ne_bytes())).unwrap();
        assert!(matches!(server.add("round", upper), Err(ServeError::Duplicate { .. })));
        assert_eq!(client.call("round", b"", NEVER).unwrap(), round.to_ne_bytes());
        assert_eq!(client.call("upper", b"x", NEVER).unwrap(), b"X");
        assert_eq!(server.functions(), ["round", "upper"]);
        server.remove("round").unwrap();
        assert!(matches!(server.remove("round"), Err(ServeError::Unknown { .. })));
        // Known to the client, and gone; in its place there is another one.
        if round % 2 == 0 {
            server.add("another", upper).unwrap();
            let gone = client.call("round", b"", NEVER);
            assert!(matches!(gone, Err(CallError::Unknown { .. })), "{gone:?}");
            server.remove("another").unwrap();
        }
    }
}

#[test]
fn a_callee_that_closes_each_time_it_is_asked_gets_no_flood_of_links() {
    /// Whoever is linked with is gone.
    #[derive(Debug, Default)]
    struct Gone(Mutex<u64>);
    impl Connect for Arc<Gone> {
        fn connect(&self, _: &str, _: Duration) -> Result<Link, LinkError> {
            let mut links = self.0.lock().unwrap();
            *links += 1;
            let (near, _) = Channel::pair(&small())?;
            Ok(Link { id: *links, channel: near, peer: String::new(), note: vec![0; 8] })
        }
    }
    let gone = Arc::new(Gone::default());
    let client = Client::with(Box::new(Arc::clone(&gone)));
    // Pauses of 0, 2, 4, … 128 ms and 128 ms each from then on: 10 links, or fewer.
    let timeout = Duration::from_millis(400);
    for _ in 0..2 {
        *gone.0.lock().unwrap() = 0;
        let died = client.call("any", b"", timeout);
        assert!(matches!(died, Err(CallError::Died)), "{died:?}");
        assert!((2..=11).contains(&*gone.0.lock().unwrap()), "{gone:?}");
    }
    *gone.0.lock().unwrap() = 0;
    let died = client.wait_for("any", timeout);
    assert!(matches!(died, Err(CallError::Died)), "{died:?}");
    assert!((2..=11).contains(&*gone.0.lock().unwrap()), "{gone:?}");
}

#[test]
fn a_name_that_a_callee_was_asked_for_when_it_went_is_asked_for_again() {
    /// The first one goes when it is asked, the second one serves.
    #[derive(Debug)]
    struct Restarted(Server, Mutex<u64>);
    impl Connect for Restarted {
        fn connect(&self, _: &str, _: Duration) -> Result<Link, LinkError> {
            let mut links = self.1.lock().unwrap();
            *links += 1;
            let (near, mut far) = Channel::pair(&small())?;
            if *links == 1 {
                thread::spawn(move || assert_eq!(far.recv().unwrap().tag(), RESOLVE));
            } else {
                self.0.serve(far, "caller");
            }
            let note = self.0.identity().to_ne_bytes().to_vec();
            Ok(Link { id: *links, channel: near, peer: String::new(), note })
        }
    }
    let server = ServerBuilder::new(None).function("upper", upper).start().unwrap();
    let client = Client::with(Box::new(Restarted(server, Mutex::new(0))));
    assert_eq!(client.call("upper", b"x", NEVER).unwrap(), b"X");
}

#[test]
fn a_function_that_panics_when_it_is_dropped_costs_nobody_anything() {
    /// What a function has with it.
    struct Bad(mpsc::Sender<()>);
    impl Drop for Bad {
        fn drop(&mut self) {
            self.0.send(()).unwrap();
            panic!("dropped");
        }
    }
    let (dropped, drops) = mpsc::channel();
    let bad = || {
        let bad = Bad(dropped.clone());
        move |_: &Request<'_>| {
            let _ = &bad;
            Ok([])
        }
    };
    let (server, client) = start(ServerBuilder::new(None).function("upper", upper));
    for _ in 0..2 {
        server.add("bad", bad()).unwrap();
        client.call("bad", b"", NEVER).unwrap();
        server.remove("bad").unwrap();
        assert_eq!(client.call("upper", b"x", NEVER).unwrap(), b"X");
        drops.recv_timeout(NEVER).unwrap();
    }
    // Two that are there when the server ends.
    server.add("bad", bad()).unwrap();
    server.add("worse", bad()).unwrap();
    client.call("worse", b"", NEVER).unwrap();
    server.stop_by(NEVER).unwrap();
    (0..2).for_each(|_| drops.recv_timeout(NEVER).unwrap());
}

#[test]
fn a_panic_that_panics_when_it_is_dropped_costs_nobody_anything() {
    /// And so on.
    struct Panics;
    impl Drop for Panics {
        fn drop(&mut self) {
            std::panic::panic_any(Panics);
        }
    }
    let builder = ServerBuilder::new(None).function("upper", upper);
    let builder = builder.function("panic", |_: &Request<'_>| -> Result<Vec<u8>, Failure> {
        std::panic::panic_any(Panics)
    });
    let (server, client) = start(builder);
    for _ in 0..2 {
        let panicked = client.call("panic", b"", NEVER);
        assert!(matches!(panicked, Err(CallError::Panicked { .. })), "{panicked:?}");
        assert_eq!(client.call("upper", b"x", NEVER).unwrap(), b"X");
    }
    assert_eq!(server.stats().panics, 2);
}
