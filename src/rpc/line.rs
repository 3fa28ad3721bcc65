//! One link with a server, as its callers know it.
//!
//! [`Client`](super::Client) has one for each server it calls; any thread may call over it. What always
//! holds: at any moment at most one thread reads, and hands the others their answers; when it leaves, one
//! of those goes on. When the callee dies, closes, or breaks a rule, every wait ends with an error.
//!
//! A thread that calls alone sends, and looks for its answer for as long as one comes at once, under one
//! lock: that is what a call takes in the best case, and no other thread waits for it longer than that.
//! Whoever must wait takes the receiving end out, and lets go of the lock meanwhile.

mod reading;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::PoisonError;

use super::chain;
use super::error::CallError;
use super::fault::{End, Fault, SendProblem};
use super::frame::{CALL_BYTES, CANCEL, MAX_CHAIN, split_word};
use super::mail::{Answer, Mail};
use super::outgoing::{Clock, Outgoing};
use crate::channel::{Channel, Receiver, Sender};
use crate::error::SendTimeoutError;
use crate::os::fork;
use crate::sync::{AtomicU32, Condvar, Mutex, MutexGuard, Ordering};

/// See the module.
#[derive(Debug)]
pub(super) struct Line {
    /// Who serves.
    server: u64,
    /// The fork generation it was made in.
    generation: u64,
    state: Mutex<State>,
    /// The sender is back.
    returned: Condvar,
    /// Not 0 once `State::ended` says something.
    is_over: AtomicU32,
}

#[derive(Debug)]
struct State {
    /// Absent while a thread sends, and waits for room; and once the line is closed.
    sender: Option<Box<Sender>>,
    /// Absent while a thread reads, and waits for what comes; and once the line is closed.
    receiver: Option<Box<Receiver>>,
    last_id: u64,
    mail: Mail,
    /// Why nothing will come any more.
    ended: Option<End>,
    /// The ends were let go of; one that is out is not put back.
    is_closed: bool,
}

impl State {
    fn draw(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }
}

impl Line {
    /// # Errors
    /// The page that tells forked children from this process could not be mapped.
    pub(super) fn new(channel: Channel, server: u64) -> io::Result<Self> {
        let generation = fork::generation()?;
        let (sender, receiver) = channel.split();
        let (sender, receiver) = (Some(Box::new(sender)), Some(Box::new(receiver)));
        let state = State {
            sender,
            receiver,
            last_id: 0,
            mail: Mail::default(),
            ended: None,
            is_closed: false,
        };
        let (state, returned) = (Mutex::new(state), Condvar::new());
        Ok(Self { server, generation, state, returned, is_over: AtomicU32::new(0) })
    }

    /// No code under the lock leaves anything half done, so a panic elsewhere means nothing here.
    #[inline]
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing will come any more, as far as anybody has found out.
    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed) != 0
    }

    /// Sends a request, waits for the answer, and hands it to `take`, which is short and calls nobody: a
    /// lock may be held.
    #[inline]
    pub(super) fn ask<T>(
        &self,
        request: &Outgoing<'_>,
        clock: &mut Clock,
        take: &mut impl FnMut(u16, &[u8]) -> T,
    ) -> Result<T, Fault> {
        self.check()?;
        chain::with(self.server, |servers| self.ask_for(&request.with(servers), clock, take))
            .map_err(Fault::Bad)?
    }

    #[inline]
    fn ask_for<T>(
        &self,
        request: &Outgoing<'_>,
        clock: &mut Clock,
        take: &mut impl FnMut(u16, &[u8]) -> T,
    ) -> Result<T, Fault> {
        let id = match self.ask_at_once(request, take)? {
            AtOnce::Answered(answer) => return Ok(answer),
            AtOnce::Sent(id) => id,
            AtOnce::NotSent => self.start_for(request, clock)?,
        };
        match self.wait(id, clock)? {
            Some(Answer { tag, payload }) => Ok(take(tag, &payload)),
            None => {
                self.give_up(id);
                Err(Fault::Timeout)
            }
        }
    }

    /// Sends a request if there is room, and nobody reads or sends. The answer, if it comes at once.
    #[inline]
    fn ask_at_once<T>(
        &self,
        request: &Outgoing<'_>,
        take: &mut impl FnMut(u16, &[u8]) -> T,
    ) -> Result<AtOnce<T>, Fault> {
        let mut guard = self.state();
        let State { sender, receiver, last_id, mail, ended, .. } = &mut *guard;
        let (Some(sender), Some(receiver), None) = (sender, receiver, &ended) else {
            return Ok(AtOnce::NotSent);
        };
        if mail.is_full() {
            return Ok(AtOnce::NotSent);
        }
        *last_id += 1;
        let id = *last_id;
        match request.try_send(sender, id) {
            Ok(()) => {}
            Err(error) => {
                drop(guard);
                return self.unsent(error.into()).map(|()| AtOnce::NotSent);
            }
        }
        if let Some((message, _)) = receiver.recv_at_once() {
            let tag = message.tag();
            match split_word(message.bytes()) {
                Some((payload, found)) if found == id => {
                    let answer = take(tag, payload);
                    mail.pass_on();
                    return Ok(AtOnce::Answered(answer));
                }
                _ => {
                    mail.enter(id);
                    let sorted = mail.sort(message.bytes(), tag);
                    drop(guard);
                    sorted.map_err(|breach| self.end(End::Broken(breach)))?;
                    return Ok(AtOnce::Sent(id));
                }
            }
        }
        mail.enter(id);
        Ok(AtOnce::Sent(id))
    }

    /// Sends a request whose answer is [waited for](Self::wait) later.
    pub(super) fn start(&self, request: &Outgoing<'_>, clock: &mut Clock) -> Result<u64, Fault> {
        self.check()?;
        chain::with(self.server, |servers| self.start_for(&request.with(servers), clock))
            .map_err(Fault::Bad)?
    }

    fn start_for(&self, request: &Outgoing<'_>, clock: &mut Clock) -> Result<u64, Fault> {
        let mut entered = |state: &mut State| {
            if state.mail.is_full() || state.ended.is_some() {
                return None;
            }
            let id = state.draw();
            state.mail.enter(id);
            Some(id)
        };
        let id = match self.read_until(None, clock, &mut entered) {
            Ok(Some(id)) => id,
            Ok(None) => return Err(Fault::Full),
            Err(end) => return Err(Fault::NotSent(end)),
        };
        self.send(request, id, clock).inspect_err(|_| self.state().mail.forget(id))?;
        Ok(id)
    }

    /// Waits for an answer; `None` where it has not come in time, and may still come.
    pub(super) fn wait(&self, id: u64, clock: &mut Clock) -> Result<Option<Answer>, End> {
        self.check().map_err(|_| End::Forked)?;
        self.read_until(Some(id), clock, &mut |state| state.mail.fetch(id))
    }

    /// Nobody waits for this answer any more: the call is taken back. The server will learn of it when it
    /// looks; where there is no room to tell it, the call is carried out.
    pub(super) fn give_up(&self, id: u64) {
        if self.check().is_err() {
            return;
        }
        let mut state = self.state();
        if state.mail.abandon(id)
            && let Some(sender) = &mut state.sender
        {
            let _ = sender.try_send_tagged(CANCEL, &id.to_ne_bytes());
        }
    }

    /// Before any lock: one that another thread held when the process forked is never released.
    #[inline]
    fn check(&self) -> Result<(), Fault> {
        match fork::is_current(self.generation) {
            true => Ok(()),
            false => Err(End::Forked.into()),
        }
    }

    /// Sends a request, waiting for room. Answers are read meanwhile: where nobody does, the server may
    /// wait for us.
    fn send(&self, request: &Outgoing<'_>, id: u64, clock: &mut Clock) -> Result<(), Fault> {
        let mut state = self.state();
        if state.ended.is_none()
            && let Some(sender) = &mut state.sender
        {
            match request.try_send(sender, id) {
                Ok(()) => return Ok(()),
                Err(error) => {
                    drop(state);
                    self.unsent(error.into())?;
                    state = self.state();
                }
            }
        }
        let away = |state: &mut State| state.sender.is_none() && state.ended.is_none();
        let waited = self.returned.wait_timeout_while(state, clock.left(), away);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        if let Some(end) = state.ended {
            return Err(Fault::NotSent(end));
        }
        let Some(mut sender) = state.sender.take() else {
            return Err(Fault::Full);
        };
        drop(state);
        let sent = request.send(&mut sender, id, clock.deadline(), || self.pump());
        let ended = self.put_back(sender, |state| &mut state.sender).ended;
        self.returned.notify_one();
        sent.or_else(|error| match error {
            SendTimeoutError::Timeout => Err(ended.map_or(Fault::Full, Fault::NotSent)),
            error => self.unsent(error.into()),
        })
    }

    /// What it means that a request could not be sent; `Ok` where there was no room.
    #[cold]
    fn unsent(&self, error: SendProblem) -> Result<(), Fault> {
        match error {
            SendProblem::Room => Ok(()),
            SendProblem::TooLong { len, max } => {
                let more = (CALL_BYTES + 8 * MAX_CHAIN) as u64;
                let (len, max) = (len.saturating_sub(more), max.saturating_sub(more));
                Err(CallError::TooLong { len, max }.into())
            }
            SendProblem::End(end) => Err(Fault::NotSent(self.end(end))),
        }
    }

    /// The line is over. Returns why: the first reason stays.
    #[cold]
    pub(super) fn end(&self, end: End) -> End {
        let mut state = self.state();
        let end = *state.ended.get_or_insert(end);
        self.is_over.store(1, Ordering::Relaxed);
        state.mail.tell_all();
        drop(state);
        self.returned.notify_all();
        end
    }

    /// Lets go of the link, once the line is over, whoever has it still.
    #[cold]
    pub(super) fn close(&self) {
        if self.check().is_ok() {
            self.end(End::Died);
            // Who reads, or sends, finds that it is over.
            let mut state = self.state();
            state.is_closed = true;
            let ends = (state.sender.take(), state.receiver.take());
            drop(state);
            drop(ends);
        }
    }

    /// Puts an end back that was out, unless the line has been closed meanwhile.
    fn put_back<T>(
        &self,
        end: T,
        place: impl FnOnce(&mut State) -> &mut Option<T>,
    ) -> MutexGuard<'_, State> {
        let mut state = self.state();
        if state.is_closed {
            drop(state);
            drop(end);
            return self.state();
        }
        *place(&mut state) = Some(end);
        state
    }

    /// An answer that its request cannot have ends the line.
    #[cold]
    pub(super) fn blame(&self, fault: &Fault) {
        if let Fault::Other(CallError::Broken(breach)) = fault {
            self.end(End::Broken(*breach));
        }
    }
}

/// What sending a request, and looking for its answer at once, has come to.
enum AtOnce<T> {
    Answered(T),
    /// The answer is awaited.
    Sent(u64),
    NotSent,
}
