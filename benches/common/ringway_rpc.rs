//! ringway's remote calls: the near side calls a function, which returns what it was given.
//!
//! Rows of the bench of remote calls.
//! What always holds: only the public API is used; the function checks the number of every message, and
//! the far side ends after the last one.

use std::os::fd::OwnedFd;
use std::time::Duration;

use ringway::rpc::{Client, Failure, Function, Request, Server};

use super::case::{Case, Setting, Transport, measure_processes};
use super::cli::ChildArgs;
use super::link::{Control, End, Outcome, STOP, Spec, number_of, stamp};
use super::process::inherit;
use super::ringway_channel::{SpinsThenParks, attach, create};
use super::shared::Shared;

const TIMEOUT: Duration = Duration::from_secs(30);
const NAME: &str = "echo";

/// How the function is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    Handle,
    Name,
    /// Begun, then waited for.
    Start,
}

/// The near side.
#[derive(Debug)]
pub struct Caller<const BY: u8> {
    client: Client,
    function: Function,
    out: Vec<u8>,
}

pub const BY_HANDLE: u8 = By::Handle as u8;
pub const BY_NAME: u8 = By::Name as u8;
pub const BY_START: u8 = By::Start as u8;

impl<const BY: u8> Transport for Caller<BY> {
    type End = Self;

    fn create(spec: &Spec) -> (Self, Vec<OwnedFd>) {
        let (channel, fds) = create::<SpinsThenParks>(spec);
        let client = Client::over(channel);
        let function = client.function(NAME);
        (Self { client, function, out: vec![0xa5; spec.size] }, fds)
    }

    fn attach(_: &Spec, _: Vec<OwnedFd>) -> Self {
        unreachable!("the far side serves")
    }
}

impl<const BY: u8> End for Caller<BY> {
    #[inline]
    fn send(&mut self, number: u64) {
        stamp(&mut self.out, number);
    }

    #[inline]
    fn recv(&mut self) -> u64 {
        let Self { client, function, out } = self;
        let number = |bytes: &[u8]| {
            assert_eq!(bytes.len(), out.len(), "not a result of this bench");
            number_of(bytes)
        };
        match BY {
            BY_HANDLE => function.call_with(out, TIMEOUT, number).expect("a result"),
            BY_NAME => number(&client.call(NAME, out, TIMEOUT).expect("a result")),
            _ => {
                let mut call = function.start(out, TIMEOUT).expect("a server");
                number(&call.wait(TIMEOUT).expect("a result"))
            }
        }
    }
}

/// The near side's measurement.
pub fn measure<const BY: u8>(case: &Case, setting: &Setting) -> Outcome {
    measure_processes::<Caller<BY>>(case, setting)
}

/// The far side.
pub fn serve(args: &ChildArgs) {
    let mut fds = inherit(args);
    let control = Control::new(Shared::attach(fds.remove(0)));
    let channel = attach::<SpinsThenParks>(&args.spec, fds);
    let (tell, told) = std::sync::mpsc::channel();
    let mut expected = 0;
    let size = args.spec.size;
    let echo = move |request: &Request<'_>, result: &mut Vec<u8>| -> Result<(), Failure> {
        assert_eq!(request.len(), size, "not a message of this bench");
        match number_of(request) {
            STOP => tell.send(()).expect("somebody waits"),
            number => assert_eq!(number, expected, "a message is missing or came twice"),
        }
        expected += 1;
        result.extend_from_slice(request);
        Ok(())
    };
    let server = Server::builder().function_into(NAME, echo).start().expect("a thread");
    server.serve(channel, "near");
    control.set_ready();
    told.recv().expect("the last message");
    server.drain(TIMEOUT).expect("the end of the server");
}
