//! Plugins that attack their host in one way each, until they are stopped, and what a host program does that gives
//! them the opportunity.
//!
//! `tests/hostile_attacks` asserts what must hold meanwhile; `benches/hostile` measures what neighbours notice. An
//! attacker uses what it was given: descriptors, mappings, streams, requests. Invariants: an attacker counts what
//! it has tried and what has reached its aim; it never ends by itself, unless its ends are the attack.

pub mod counters;
mod descriptors;
mod futexes;
pub mod opportunity;
mod orphan;
mod passing;
mod service;
mod stalling;
mod streams;

use std::env;
use std::thread;

use ringway::host::Plugin;
use ringway::host::control::VARIABLE;

pub use opportunity::{Opportunity, user};

/// Where an attacker finds which attack it is to make.
const ATTACK: &str = "RINGWAY_ATTACK";

/// One way to attack; the rows are those of the table of failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attack {
    /// Row 47: removes all keys, again and again, so that tables come and go.
    Clear,
    /// Row 48: sleeps on the words on which others sleep.
    Wait,
    /// Row 48: moves those that sleep there to a word of its own.
    Requeue,
    /// Row 48: sleeps there so that waking anybody fails.
    RequeuePi,
    /// Row 53: hands files of huge pages over, and makes holes in them.
    HugePages,
    /// Row 54: hands over what never answers, or never ends.
    Silent,
    /// Row 63: leaves a process that stops and kills every successor of the plugin.
    StopStarts,
    /// Row 70: fills its streams, and changes whatever can be changed about them.
    Streams,
    /// Row 91: subscribes, and never reads.
    Subscribe,
    /// No attack: uses up processor time.
    Burn,
}

impl Attack {
    pub const ALL: [Self; 9] = [
        Self::Clear,
        Self::Wait,
        Self::Requeue,
        Self::RequeuePi,
        Self::HugePages,
        Self::Silent,
        Self::StopStarts,
        Self::Streams,
        Self::Subscribe,
    ];

    /// What the process of this attacker does.
    fn run(self) {
        match self {
            Self::Clear => service::clear(),
            Self::Wait | Self::Requeue | Self::RequeuePi => futexes::attack(self),
            Self::HugePages => descriptors::hand_over_huge_pages(),
            Self::Silent => descriptors::hand_over_what_is_silent(),
            Self::StopStarts => orphan::leave_one(),
            Self::Streams => streams::spoil(),
            Self::Subscribe => service::subscribe(),
            Self::Burn => burn(),
        }
    }

    fn name(self) -> String {
        format!("{self:?}")
    }
}

/// Makes the attack that this process was started for, and ends the process; returns where it was started for none.
pub fn play() {
    let Ok(name) = env::var(ATTACK) else { return };
    let known = Attack::ALL.into_iter().chain([Attack::Burn]);
    known.into_iter().find(|attack| attack.name() == name).expect("a known attack").run();
    std::process::exit(0);
}

/// The number of a descriptor that the host has announced under this key.
fn announced(key: &str) -> i32 {
    let text = env::var(VARIABLE).unwrap();
    let value = text.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    value.unwrap().parse().unwrap()
}

fn hang() -> ! {
    loop {
        thread::park();
    }
}

/// As busy as the busiest attacker.
fn burn() {
    let plugin = Plugin::connect().unwrap();
    let _channels = plugin.take_channels().unwrap();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    std::hint::spin_loop();
                }
            });
        }
    });
}
