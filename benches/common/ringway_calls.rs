//! ringway's calls: a question and its reply, as a round trip.
//!
//! Rows of the bench of long messages and calls.
//! What always holds: only the public API is used; the near side calls, the far side answers each
//! message under the call that it makes.

use std::marker::PhantomData;
use std::os::fd::OwnedFd;
use std::time::Duration;

use ringway::channel::{CallId, Channel, PendingCall};

use super::case::Transport;
use super::link::{End, Spec, number_of, stamp};
use super::ringway_channel::{Wait, attach, create};

const TIMEOUT: Duration = Duration::from_secs(30);

/// One side: the near one calls, the far one answers. With `BEGUN`, the near side begins a call and
/// finishes it; else it is one call, made where the answer is asked for.
#[derive(Debug)]
pub struct Calls<W, const BEGUN: bool> {
    channel: Channel,
    out: Vec<u8>,
    pending: Option<PendingCall>,
    /// Present in the far side only.
    called: Option<Option<CallId>>,
    wait: PhantomData<W>,
}

impl<W: Wait, const BEGUN: bool> Calls<W, BEGUN> {
    fn new(channel: Channel, spec: &Spec, called: Option<Option<CallId>>) -> Self {
        let out = vec![0xa5; spec.size];
        Self { channel, out, pending: None, called, wait: PhantomData }
    }
}

impl<W: Wait, const BEGUN: bool> Transport for Calls<W, BEGUN> {
    type End = Self;

    fn create(spec: &Spec) -> (Self, Vec<OwnedFd>) {
        let (channel, fds) = create::<W>(spec);
        (Self::new(channel, spec, None), fds)
    }

    fn attach(spec: &Spec, fds: Vec<OwnedFd>) -> Self {
        Self::new(attach::<W>(spec, fds), spec, Some(None))
    }
}

impl<W: Wait, const BEGUN: bool> End for Calls<W, BEGUN> {
    #[inline]
    fn send(&mut self, number: u64) {
        stamp(&mut self.out, number);
        match &mut self.called {
            Some(called) => {
                let call = called.take().expect("received before");
                self.channel.reply(call, &self.out).expect("an open channel");
            }
            None if BEGUN => {
                let pending = self.channel.begin_call(&self.out).expect("an open channel");
                self.pending = Some(pending);
            }
            None => {}
        }
    }

    #[inline]
    fn recv(&mut self) -> u64 {
        let message = match (&mut self.called, self.pending.take()) {
            (Some(called), _) => {
                let message = self.channel.recv().expect("an open channel");
                *called = Some(message.call().expect("a call"));
                message
            }
            (None, Some(call)) => self.channel.finish_call(&call, TIMEOUT).expect("a reply"),
            (None, None) => self.channel.call(&self.out, TIMEOUT).expect("a reply"),
        };
        assert_eq!(message.len(), self.out.len(), "not a message of this bench");
        number_of(&message)
    }
}
