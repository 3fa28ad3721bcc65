//! The plugins: readers, which answer every line with what they found there and keep their running
//! totals in the host's store; and an observer, which looks at these meanwhile.

use std::env;
use std::error::Error;
use std::time::Duration;

use bytemuck::{Pod, Zeroable};
use ringway::Schema;
use ringway::error::{RecvError, RecvTimeoutError, SendError};
use ringway::host::{Plugin, control};
use ringway::store::{ReadError, Store, TypedError};

use crate::work::{Answer, Totals, look_at};

/// The observer's name; all others are readers.
pub const OBSERVER: &str = "observer";
/// The key under which the host says how many lines a reader may take at once.
pub const LINES_AT_ONCE: &str = "lines at once";
/// What the keys of all totals begin with.
const TOTALS: &str = "totals/";

/// What the observer has seen.
#[derive(Debug, Clone, Copy, Default, Pod, Zeroable)]
#[repr(C)]
pub struct Observed {
    pub looks: u64,
    /// Totals that were others than at the look before.
    pub changes: u64,
    /// Totals that went back, or are impossible.
    pub wrong: u64,
}

/// A number in the store.
#[derive(Debug, Clone, Copy, Pod, Zeroable, Schema)]
#[repr(C)]
pub struct Number(pub u64);

/// The key under which a reader keeps its totals.
pub fn totals_key(reader: &str) -> String {
    format!("{TOTALS}{reader}")
}

/// Whether a host has started this process.
pub fn is_plugin() -> bool {
    env::var_os(control::VARIABLE).is_some()
}

pub fn run() -> Result<(), Box<dyn Error>> {
    let plugin = Plugin::connect()?;
    let store = plugin.store()?;
    if plugin.name() == OBSERVER { observe(&plugin, &store) } else { read(&plugin, &store) }
}

fn read(plugin: &Plugin, store: &Store) -> Result<(), Box<dyn Error>> {
    let key = totals_key(plugin.name());
    // A predecessor's, where there was one.
    let mut totals = store.get_pod::<Totals>(&key)?.map_or_else(Totals::default, |totals| *totals);
    let at_once = store.get_pod::<Number>(LINES_AT_ONCE)?.map_or(1, |number| number.0);
    let (active, _passive) = plugin.take_channels()?;
    let (mut sender, mut receiver) = active.split();
    let mut answers = Vec::new();
    loop {
        answers.clear();
        // They stay in the ring until the next call: a successor gets again what is not counted yet.
        let taken = receiver.recv_batch(at_once as usize, |message| {
            answers.push(message.split_first_chunk().map(|(number, line)| Answer {
                number: u64::from_ne_bytes(*number),
                findings: look_at(line),
            }));
        });
        match taken {
            Ok(_) => {}
            // The host has closed its end: there is no more to do.
            Err(RecvError::Disconnected) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        for answer in &answers {
            let Answer { number, findings } = answer.ok_or("a message without a number")?;
            // What comes again may have been counted already.
            if number == totals.lines {
                totals.add(&findings);
            }
        }
        store.set_pod(&key, &totals)?;
        match sender.send_batch(answers.iter().flatten().map(bytemuck::bytes_of)) {
            Ok(_) => {}
            Err(SendError::Disconnected) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

fn observe(plugin: &Plugin, store: &Store) -> Result<(), Box<dyn Error>> {
    let (mut active, _passive) = plugin.take_channels()?;
    let mut observed = Observed::default();
    let mut last = Vec::new();
    loop {
        // Anything that the host says is that it wants to know.
        match active.recv_timeout(Duration::from_millis(1)) {
            Ok(_) => return Ok(active.send_pod(&observed)?),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        observed.looks += 1;
        for number in 0.. {
            let key = totals_key(&format!("reader-{number}"));
            let now = match store.get_pod::<Totals>(&key) {
                Ok(Some(totals)) => *totals,
                Ok(None) => break,
                // It changes faster than it can be copied: there will be another look.
                Err(TypedError::Read(ReadError::Busy)) => break,
                Err(error) => return Err(error.into()),
            };
            if last.len() == number {
                last.push(Totals::default());
            }
            let before = &mut last[number];
            observed.changes += u64::from(*before != now);
            observed.wrong += u64::from(!now.may_follow(before));
            *before = now;
        }
    }
}
