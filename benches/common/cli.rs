//! Options of a bench, and the arguments with which it starts itself again as the child.
//!
//! `main` of each bench and [`process`](super::process) call it.
//! What always holds: what the parent measures and what the child serves come from the same
//! [`Spec`], handed over in full.

use std::time::Duration;

use clap::Parser;

use super::link::{Job, Spec};

/// Options of every bench.
#[derive(Debug, Clone, Parser)]
#[command(about = "Measures between two pinned processes; medians of several interleaved runs")]
pub struct Options {
    /// A smoke test: few sizes, one short run. Also what runs without cargo's `--bench`.
    #[arg(long)]
    pub quick: bool,
    /// How many interleaved runs to take medians of.
    #[arg(long, default_value_t = 7)]
    pub runs: usize,
    /// Measure only rows whose name contains this (yardsticks are always measured).
    #[arg(long)]
    pub only: Option<String>,
    /// Milliseconds to spend on each measurement.
    #[arg(long, default_value_t = 25)]
    pub millis: u64,
    /// Only these message sizes, in bytes, separated by commas.
    #[arg(long, value_delimiter = ',')]
    pub sizes: Vec<usize>,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
    /// The case that this process serves as the child.
    #[arg(long, hide = true)]
    child: Option<String>,
    #[arg(long, hide = true, default_value_t = 8)]
    size: usize,
    #[arg(long, hide = true, default_value_t = 4096)]
    capacity: usize,
    #[arg(long, hide = true, default_value_t = false)]
    one_way: bool,
    #[arg(long, hide = true, default_value_t = 0)]
    cpu: usize,
    #[arg(long, hide = true)]
    near: bool,
    #[arg(long, hide = true, default_value_t = 0)]
    parent: u32,
    #[arg(long, hide = true, value_delimiter = ',')]
    fds: Vec<i32>,
}

/// What a child is to do.
#[derive(Debug)]
pub struct ChildArgs {
    pub case: String,
    pub spec: Spec,
    pub job: Job,
    /// Where the far end runs.
    pub cpu: usize,
    /// The child is the near end, starts the far end itself, and measures for about this long.
    pub near: Option<Duration>,
    pub parent: u32,
    pub fds: Vec<i32>,
}

impl Options {
    /// From the command line. Without `--bench`, as when cargo runs a bench as a test, it is quick.
    pub fn from_command_line() -> Self {
        Self::parse().settled()
    }

    /// What follows from what was given.
    pub fn settled(mut self) -> Self {
        self.quick |= !self.bench;
        if self.quick {
            self.runs = 1;
            self.millis = 2;
        }
        self.runs = self.runs.max(1);
        self
    }

    /// `Some` in the child.
    pub fn child(&self) -> Option<ChildArgs> {
        let case = self.child.clone()?;
        Some(ChildArgs {
            case,
            spec: Spec { size: self.size, capacity: self.capacity },
            job: if self.one_way { Job::OneWay } else { Job::RoundTrip },
            cpu: self.cpu,
            near: self.near.then(|| Duration::from_millis(self.millis)),
            parent: self.parent,
            fds: self.fds.clone(),
        })
    }

    /// The sizes to measure: those asked for, or the first list, or the second where it is quick.
    pub fn sizes(&self, all: &[usize], quick: &[usize]) -> Vec<usize> {
        match (self.sizes.is_empty(), self.quick) {
            (false, _) => self.sizes.clone(),
            (true, false) => all.to_vec(),
            (true, true) => quick.to_vec(),
        }
    }

    /// Whether a row of this name was asked for.
    pub fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|filter| name.contains(filter.as_str()))
    }
}

impl ChildArgs {
    /// The command line from which [`Options::child`] reads this again.
    pub fn to_args(&self) -> Vec<String> {
        let fds: Vec<String> = self.fds.iter().map(ToString::to_string).collect();
        let mut args = vec![
            format!("--child={}", self.case),
            format!("--size={}", self.spec.size),
            format!("--capacity={}", self.spec.capacity),
            format!("--cpu={}", self.cpu),
            format!("--parent={}", self.parent),
            format!("--fds={}", fds.join(",")),
        ];
        if self.job == Job::OneWay {
            args.push("--one-way".into());
        }
        if let Some(time) = self.near {
            args.extend(["--bench".into(), "--near".into()]);
            args.push(format!("--millis={}", time.as_millis()));
        }
        args
    }
}
