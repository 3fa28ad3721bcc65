//! ringway's passive mode at the far side: a callback answers, or counts.
//!
//! Rows of the passive bench; the near side is active, as in every other row.
//! What always holds: the callback checks the number of every message, and ends the far side at the last
//! one.
#![allow(clippy::disallowed_types)] // see shared.rs

use ringway::channel::{Message, Sender};

use super::case::{Case, Setting, measure_processes};
use super::cli::ChildArgs;
use super::link::{Control, Job, MARK, Outcome, STOP, number_of};
use super::process::inherit;
use super::ringway_channel::{Copying, SpinsThenParks, attach};
use super::shared::Shared;

/// So many filters, of which the last matches.
#[derive(Debug)]
pub struct Called<const FILTERS: usize>;

/// How many filters there are.
pub trait Filters {
    const COUNT: usize;
}

impl<const FILTERS: usize> Filters for Called<FILTERS> {
    const COUNT: usize = FILTERS;
}

/// The near side: an active one.
pub fn measure(case: &Case, setting: &Setting) -> Outcome {
    measure_processes::<Copying<SpinsThenParks>>(case, setting)
}

/// The far side.
pub fn serve<F: Filters>(args: &ChildArgs) {
    let mut fds = inherit(args);
    let control = Control::new(Shared::attach(fds.remove(0)));
    let (sender, receiver) = attach::<SpinsThenParks>(&args.spec, fds).split();
    let mut passive = receiver.passive();
    for tag in 1..F::COUNT as u16 {
        passive = passive.on(move |m: &Message<'_>| m.tag() == tag, |_: &Message<'_>| ());
    }
    let (tell, told) = std::sync::mpsc::channel();
    let size = args.spec.size;
    let untagged = move |m: &Message<'_>| m.tag() == 0 && m.len() == size;
    let ready = control.clone();
    let passive = match args.job {
        Job::RoundTrip => passive.on(untagged, answer(sender, tell)),
        Job::OneWay => passive.on(untagged, count(control, tell)),
    };
    let running = passive.start().expect("a thread");
    ready.set_ready();
    told.recv().expect("the last message");
    assert_eq!(running.callbacks().stats().panics, 0, "a message is missing or came twice");
    drop(running.stop().expect("the receiver"));
}

type Tell = std::sync::mpsc::Sender<()>;

fn answer(mut sender: Sender, tell: Tell) -> impl FnMut(&Message<'_>) + Send {
    let mut expected = 0;
    move |message: &Message<'_>| {
        let number = number_of(message);
        sender.send(message).expect("an open channel");
        match number {
            STOP => tell.send(()).expect("somebody waits"),
            number => assert_eq!(number, expected, "a message is missing or came twice"),
        }
        expected += 1;
    }
}

fn count(control: Control, tell: Tell) -> impl FnMut(&Message<'_>) + Send {
    let mut expected = 0;
    move |message: &Message<'_>| match number_of(message) {
        MARK => control.acknowledge(1),
        STOP => {
            control.acknowledge(2);
            tell.send(()).expect("somebody waits");
        }
        number => {
            assert_eq!(number, expected, "a message is missing or came twice");
            expected += 1;
        }
    }
}
