//! The server's thread: wait for calls, carry them out, answer.
//!
//! [`Server`](super::Server) starts it. What always holds: of each caller so many calls are carried out
//! in a row while others wait; a caller that breaks a rule, or whose answers nobody fetches, is let go of
//! and the others do not notice; a function that panics costs its caller an error and nobody anything else.

use std::any::Any;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::chain;
use super::frame::{
    CALL, CANCEL, CANCELLED, Call, DONE, FAILED, MALFORMED, MAX_PANIC_BYTES, NO_RESULT, PANICKED,
    RESOLVE, RESOLVED, Resolve, Target, UNKNOWN, WRONG_TYPES,
};
use super::function::{Answer, Fault, Function};
use super::inbox::{Arrival, Command, Orders};
use super::request::{Request, Withdrawn};
use super::visitor::{Progress, Stand, Visitor};
use crate::callback::{quietly, text_of};
use crate::channel::{Ahead, Behind, Event, Message, Receiver, Selector};
use crate::error::RecvError;

/// How long the thread sleeps where nothing happens at all.
const IDLE: Duration = Duration::from_secs(3600);
/// Looks at callers that make no room: the first soon, for those that are about to.
const FIRST_LOOK: Duration = Duration::from_micros(20);
const LAST_LOOK: Duration = Duration::from_millis(5);
/// Receivers that are awake where one caller is served: its own and the bell.
const ALONE: usize = 2;
/// An answer's memory is kept for the next one, up to this.
const MAX_KEPT_BYTES: usize = 1 << 20;

/// What can be chosen about the thread.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manners {
    /// Requests of one caller in a row.
    pub(super) budget: usize,
    /// How long a caller may leave an answer in the way.
    pub(super) patience: Duration,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Serving {
    selector: Selector,
    hall: Hall,
    /// Callers whose answers wait for room, and what they send meanwhile.
    aside: Vec<(Visitor, Receiver)>,
    manners: Manners,
    /// How long to wait until callers that make no room are looked at again.
    look: Duration,
}

/// Everything but who is waited for.
#[derive(Debug)]
struct Hall {
    orders: Arc<Orders>,
    /// By token; the bell has none.
    visitors: Vec<Option<Visitor>>,
    functions: Vec<Option<Placed>>,
    answer: Answer,
    /// Tokens of those that stand otherwise than before this round.
    changed: Vec<(usize, Stand)>,
    /// Callers who are to be let in.
    arrivals: Vec<Arrival>,
}

#[derive(Debug)]
struct Placed {
    name: String,
    generation: u32,
    function: Function,
}

impl Serving {
    /// `selector` has the bell.
    pub(super) fn new(orders: Arc<Orders>, selector: Selector, manners: Manners) -> Self {
        let hall = Hall {
            orders,
            visitors: Vec::new(),
            functions: Vec::new(),
            answer: Answer::default(),
            changed: Vec::new(),
            arrivals: Vec::new(),
        };
        Self { selector, hall, aside: Vec::new(), manners, look: FIRST_LOOK }
    }

    /// Until it is told to stop.
    pub(super) fn run(mut self, identity: u64) {
        chain::enter(identity);
        loop {
            self.welcome();
            if self.hall.orders.is_stopped() {
                break;
            }
            let waits = self.look_after();
            // Asked for before the rings are found empty.
            let draining = self.hall.orders.is_draining();
            let timeout = if draining { Duration::ZERO } else { waits.unwrap_or(IDLE) };
            let Self { selector, hall, manners, .. } = &mut self;
            let events =
                selector.poll_at(manners.budget, ALONE, timeout, |token, event, behind| {
                    hall.take(token, event, behind)
                });
            self.settle();
            if draining && events == 0 && self.aside.is_empty() {
                break;
            }
        }
    }

    /// Lets in who has come.
    fn welcome(&mut self) {
        if self.hall.orders.has_news() {
            self.hall.hear();
        }
        for Arrival { channel, caller } in std::mem::take(&mut self.hall.arrivals) {
            let (sender, receiver) = channel.split();
            match Ahead::of(&receiver) {
                Ok(ahead) => {
                    let visitor = Visitor::new(caller, sender, Withdrawn::new(ahead));
                    self.place(visitor, receiver);
                }
                // Spoilt before it was used.
                Err(_) => self.hall.orders.counters.dropped.count(),
            }
        }
    }

    /// Those whose answers wait for room: whether there is some. How long to wait until the next look.
    fn look_after(&mut self) -> Option<Duration> {
        if self.aside.is_empty() {
            return None;
        }
        let mut moved = false;
        for at in (0..self.aside.len()).rev() {
            let (visitor, _) = &mut self.aside[at];
            let progress = visitor.go_on();
            moved |= progress != Progress::None;
            match progress {
                Progress::Done => {
                    let (visitor, receiver) = self.aside.swap_remove(at);
                    self.place(visitor, receiver);
                }
                Progress::Gone => drop(self.aside.swap_remove(at)),
                Progress::None if visitor.keeps_waiting(self.manners.patience) => {
                    // First, so that a caller who finds that it was let go of finds that it was counted.
                    self.hall.orders.counters.dropped.count();
                    drop(self.aside.swap_remove(at));
                }
                Progress::Some | Progress::None => {}
            }
        }
        self.count_callers();
        self.look = if moved { FIRST_LOOK } else { (2 * self.look).min(LAST_LOOK) };
        (!self.aside.is_empty()).then_some(self.look)
    }

    /// A caller is served from now on, or again.
    fn place(&mut self, visitor: Visitor, receiver: Receiver) {
        let token = self.selector.add(receiver);
        let visitors = &mut self.hall.visitors;
        if visitors.len() <= token {
            visitors.resize_with(token + 1, || None);
        }
        visitors[token] = Some(visitor);
        self.count_callers();
    }

    /// What the last round has changed.
    fn settle(&mut self) {
        if self.hall.changed.is_empty() {
            return;
        }
        while let Some((token, stand)) = self.hall.changed.pop() {
            let Some(visitor) = self.hall.visitors.get_mut(token).and_then(Option::take) else {
                continue;
            };
            let Some(receiver) = self.selector.remove(token) else { continue };
            match stand {
                Stand::Served | Stand::Gone => {}
                Stand::Waits => self.aside.push((visitor, receiver)),
                Stand::Broken => self.hall.orders.counters.dropped.count(),
            }
        }
        self.count_callers();
    }

    fn count_callers(&self) {
        let here = self.hall.visitors.iter().flatten().count() + self.aside.len();
        self.hall.orders.counters.callers.set(here as u64);
    }
}

impl Drop for Serving {
    /// Whoever waits for the thread must not wait in vain, also where it has panicked.
    fn drop(&mut self) {
        // Callers are told before: who has waited finds the links closed.
        self.selector = Selector::new();
        self.hall.visitors.clear();
        self.aside.clear();
        self.hall.orders.is_over();
        for placed in self.hall.functions.drain(..) {
            quietly(|| drop(placed));
        }
    }
}

impl Hall {
    /// What has been asked for. Callers who come are let in before the next round.
    #[cold]
    fn hear(&mut self) {
        for command in self.orders.news() {
            match command {
                Command::Admit(arrival) => self.arrivals.push(*arrival),
                Command::Add(Target { index, generation }, name, function) => {
                    let index = usize::from(index);
                    if self.functions.len() <= index {
                        self.functions.resize_with(index + 1, || None);
                    }
                    self.functions[index] = Some(Placed { name, generation, function });
                }
                Command::Remove(target) => {
                    let old = self.functions[usize::from(target.index)].take();
                    // The user's, and so is what its drop does.
                    quietly(|| drop(old));
                }
            }
        }
    }

    /// One event of a receiver. Whether more of it is wanted in this round.
    #[inline]
    fn take(&mut self, token: usize, event: Event<'_>, behind: Behind) -> ControlFlow<()> {
        // What was asked for before this was sent holds for it.
        if self.orders.has_news() {
            self.hear();
        }
        let stand = match event {
            Event::Message(message) => self.serve(token, &message, behind),
            Event::Error(RecvError::Corrupt(_)) => Stand::Broken,
            Event::Error(_) => Stand::Gone,
        };
        if stand == Stand::Served {
            return ControlFlow::Continue(());
        }
        self.changed.push((token, stand));
        ControlFlow::Break(())
    }

    #[inline]
    fn serve(&mut self, token: usize, message: &Message<'_>, behind: Behind) -> Stand {
        let Some(Some(visitor)) = self.visitors.get_mut(token) else {
            // The bell.
            return Stand::Served;
        };
        let Self { orders, functions, answer, .. } = self;
        let bytes = message.bytes();
        match message.tag() {
            CALL => match Call::of(bytes) {
                Some(call) => carry_out(&call, behind, visitor, functions, orders, answer),
                None => Stand::Broken,
            },
            RESOLVE => match Resolve::of(bytes) {
                Some(question) => resolve(&question, visitor, orders, &mut answer.bytes),
                None => Stand::Broken,
            },
            CANCEL => match <&[u8; 8]>::try_from(bytes) {
                Ok(_) => {
                    visitor.withdrawn.get_mut().pass(behind.end);
                    Stand::Served
                }
                Err(_) => Stand::Broken,
            },
            _ => Stand::Broken,
        }
    }
}

#[inline]
fn carry_out(
    call: &Call<'_>,
    behind: Behind,
    visitor: &mut Visitor,
    functions: &mut [Option<Placed>],
    orders: &Orders,
    answer: &mut Answer,
) -> Stand {
    let Target { index, generation } = call.target;
    let Some(Some(placed)) = functions.get_mut(usize::from(index)) else {
        return visitor.answer_bare(UNKNOWN, call.id, &mut answer.bytes);
    };
    if placed.generation != generation {
        return visitor.answer_bare(UNKNOWN, call.id, &mut answer.bytes);
    }
    let withdrawn = visitor.withdrawn.get_mut();
    // What has just come has not been taken back yet; and the caller is about to write there.
    if !behind.is_new {
        withdrawn.look(behind.end);
    }
    if withdrawn.has(call.id) {
        orders.counters.skipped.count();
        return visitor.answer_bare(CANCELLED, call.id, &mut answer.bytes);
    }
    let request = Request {
        arguments: call.arguments,
        function: &placed.name,
        caller: &visitor.name,
        id: call.id,
        end: behind.end,
        withdrawn: &visitor.withdrawn,
        orders,
    };
    orders.counters.calls.count();
    if !call.chain.is_empty() {
        chain::add(call.chain);
    }
    // What a function leaves behind when it panics is its own; the answer is made anew.
    let called = catch_unwind(AssertUnwindSafe(|| placed.function.call(&request, answer)));
    if !call.chain.is_empty() {
        chain::forget();
    }
    let tag = match called {
        Ok(Ok(())) => DONE,
        Ok(Err(fault)) => blame(fault, &mut answer.bytes),
        Err(panic) => {
            orders.counters.panics.count();
            confess(panic, &mut answer.bytes)
        }
    };
    let stand = visitor.answer(tag, call.id, &mut answer.bytes);
    if answer.bytes.capacity() > MAX_KEPT_BYTES {
        answer.bytes = Vec::new();
    }
    stand
}

/// The answer of a function that has no result.
#[cold]
fn blame(fault: Fault, answer: &mut Vec<u8>) -> u16 {
    answer.clear();
    match fault {
        Fault::Failed(failure) => {
            answer.extend_from_slice(failure.bytes());
            FAILED
        }
        Fault::Malformed => MALFORMED,
        Fault::NoResult => NO_RESULT,
    }
}

/// The answer of a function that has panicked.
#[cold]
fn confess(panic: Box<dyn Any + Send>, answer: &mut Vec<u8>) -> u16 {
    let text = text_of(panic);
    answer.clear();
    answer.extend_from_slice(&text.as_bytes()[..text.floor_char_boundary(MAX_PANIC_BYTES)]);
    PANICKED
}

#[cold]
fn resolve(
    question: &Resolve<'_>,
    visitor: &mut Visitor,
    orders: &Orders,
    answer: &mut Vec<u8>,
) -> Stand {
    answer.clear();
    let found = std::str::from_utf8(question.name).ok().and_then(|name| orders.find(name));
    let tag = match found {
        None => UNKNOWN,
        Some((target, types)) if types == question.types => {
            answer.extend_from_slice(&target.pack(0).to_ne_bytes());
            RESOLVED
        }
        Some((_, types)) => {
            answer.extend_from_slice(&types.arguments.to_ne_bytes());
            answer.extend_from_slice(&types.result.to_ne_bytes());
            WRONG_TYPES
        }
    };
    visitor.answer(tag, question.id, answer)
}
