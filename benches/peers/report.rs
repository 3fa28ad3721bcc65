//! What a run found, printed as it comes and, where that was asked for, kept in `RESULTS.md`.
//!
//! `peers.rs` fills it.
//! What always holds: each part of the file holds what one run printed, and the command that prints it
//! again.

use std::fs;

use crate::common::plan::{Results, Series};
use crate::common::table::{bytes, figure, render};

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../RESULTS.md");
/// The versions that were measured.
const LOCK: &str = include_str!("../../Cargo.lock");

/// How the cells of a table read.
#[derive(Debug, Clone, Copy)]
pub enum Figures {
    /// Nanoseconds: less is better.
    Nanoseconds,
    /// Messages a second: more is better.
    Rate,
}

/// Everything printed so far.
#[derive(Debug, Default)]
pub struct Report(String);

impl Report {
    /// Prints a paragraph.
    pub fn say(&mut self, paragraph: &str) {
        println!("{paragraph}\n");
        self.0.push_str(paragraph);
        self.0.push_str("\n\n");
    }

    /// Prints a table, and below it what failed.
    ///
    /// `ringway` names the row of ringway's that a row stands beside: itself where there is none.
    pub fn table(&mut self, results: &Results, figures: Figures, ringway: fn(&str) -> &str) {
        let heading = match figures {
            Figures::Nanoseconds => "ns (× yardstick; ringway ÷ row)",
            Figures::Rate => "M/s (× yardstick; ringway ÷ row)",
        };
        let table = render(heading, results, |name, series, size| {
            let value = match figures {
                Figures::Nanoseconds => figure(series.value()),
                Figures::Rate => figure(series.value() / 1e6),
            };
            match results.row(ringway(name), size) {
                _ if ringway(name) == name => {
                    format!("{value} ({})", figure(series.ratio()))
                }
                Some((mine, _)) => {
                    let beside = figure(mine.ratio_to(series));
                    format!("{value} ({}; {beside})", figure(series.ratio()))
                }
                None => format!("{value} ({})", figure(series.ratio())),
            }
        });
        self.say(&table.to_string());
        let failures = failures(results);
        if !failures.is_empty() {
            self.say(&failures.join("\n"));
        }
    }

    /// Keeps everything printed so far in the file, in the place of what has the same heading.
    pub fn write(&self) {
        let mine = self.0.trim();
        let heading = mine.lines().next().expect("a heading");
        let before = fs::read_to_string(PATH).unwrap_or_default();
        let mut parts: Vec<&str> = Vec::new();
        let starts = before.match_indices("# ").map(|(at, _)| at);
        let starts: Vec<usize> =
            starts.filter(|at| *at == 0 || before[..*at].ends_with("\n\n")).collect();
        for (index, start) in starts.iter().enumerate() {
            let end = starts.get(index + 1).copied().unwrap_or(before.len());
            parts.push(before[*start..end].trim());
        }
        match parts.iter_mut().find(|part| part.lines().next() == Some(heading)) {
            Some(part) => *part = mine,
            None => parts.push(mine),
        }
        fs::write(PATH, parts.join("\n\n") + "\n").expect("writing the results");
        println!("written to benches/RESULTS.md");
    }
}

/// A line for each reason for which cells of a row have no figure.
fn failures(results: &Results) -> Vec<String> {
    let mut lines = Vec::new();
    for (row, columns) in results.plan.rows.iter().zip(&results.rows) {
        let failed = |series: &&Series| series.failure.is_some();
        let reasons = columns.iter().filter(failed).map(|series| series.failure.as_deref());
        let mut reasons: Vec<&str> = reasons.flatten().collect();
        reasons.dedup();
        for reason in reasons {
            let sizes: Vec<String> = columns
                .iter()
                .zip(&results.plan.specs)
                .filter(|(series, _)| series.failure.as_deref() == Some(reason))
                .map(|(_, spec)| bytes(spec.size))
                .collect();
            let line = format!("- {}, {}: {reason}", row.case.name, sizes.join(", "));
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
    }
    lines
}

/// The versions of these crates.
pub fn versions(crates: &[&str]) -> String {
    let version = |name: &str| {
        let entry = LOCK
            .split("[[package]]")
            .find(|entry| entry.lines().any(|line| line == format!("name = \"{name}\"")))?;
        entry.lines().find_map(|line| line.strip_prefix("version = ")).map(|v| v.replace('"', ""))
    };
    let each = |name: &&str| format!("{name} {}", version(name).expect("a peer in Cargo.lock"));
    crates.iter().map(each).collect::<Vec<_>>().join(", ")
}

/// Kernel and processor.
pub fn machine() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("an unnamed processor", |(_, model)| model);
    format!("Linux {}, {model}", kernel.trim())
}

/// The command that this run was started with, as one would type it.
pub fn command() -> String {
    let given = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let words = ["cargo bench -p ringway-peers --".to_owned()].into_iter().chain(given);
    words.collect::<Vec<_>>().join(" ")
}
