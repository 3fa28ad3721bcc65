//! The tables that a bench prints.
//!
//! `main` of each bench calls it with what a plan measured.
//! What always holds: every figure stands beside the yardstick it was divided by, and an empty cell
//! means "not measured", never zero.

use std::time::Instant;

use comfy_table::{Table, presets};

use super::plan::{Results, Series};

/// A size as people write it.
pub fn bytes(size: usize) -> String {
    match size {
        small if small < 1 << 10 => format!("{small} B"),
        kib if kib < 1 << 20 => format!("{} KiB", kib >> 10),
        mib => format!("{} MiB", mib >> 20),
    }
}

/// Three significant digits, never fewer than the whole part has.
pub fn figure(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        small if small >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// Nanoseconds of a round trip, and the ratio to the yardstick.
pub fn round_trip_cell(series: &Series) -> String {
    format!("{} ({})", figure(series.value()), figure(series.ratio()))
}

/// 50th, 99th and 99.9th percentile of round trips timed one by one, in nanoseconds.
pub fn percentile_cell(series: &Series) -> String {
    let at = |percent| series.each.percentile(percent);
    format!("{} / {} / {}", at(50.0), at(99.0), at(99.9))
}

/// Million messages a second, gigabytes a second, and the ratio to the yardstick.
pub fn one_way_cell(series: &Series, size: usize) -> String {
    let (rate, gigabytes) = (series.value() / 1e6, series.value() * size as f64 / 1e9);
    format!("{}; {} ({})", figure(rate), figure(gigabytes), figure(series.ratio()))
}

/// Prints one table: yardsticks and rows down, sizes across.
pub fn print(heading: &str, results: &Results, cell: impl Fn(&Series, usize) -> String) {
    println!("{}\n", render(heading, results, |_, series, size| cell(series, size)));
}

/// One table; `cell` is given the row's name too.
pub fn render(
    heading: &str,
    results: &Results,
    cell: impl Fn(&str, &Series, usize) -> String,
) -> Table {
    let plan = &results.plan;
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    let sizes = plan.specs.iter().map(|spec| bytes(spec.size));
    table.set_header(std::iter::once(heading.to_owned()).chain(sizes));
    let yardsticks = plan.yardsticks.iter().map(|case| (case.name, true));
    let rows = plan.rows.iter().map(|row| (row.case.name, false));
    let names = yardsticks.chain(rows);
    for ((name, bold), columns) in names.zip(results.yardsticks.iter().chain(&results.rows)) {
        let cells = columns.iter().zip(&plan.specs).map(|(series, spec)| {
            match (&series.failure, series.is_empty()) {
                (Some(_), _) => "see below".to_owned(),
                (None, true) => "-".to_owned(),
                (None, false) => cell(name, series, spec.size),
            }
        });
        let shown = if bold { format!("**{name}**") } else { name.to_owned() };
        table.add_row(std::iter::once(shown).chain(cells));
    }
    table
}

/// Prints what each ratio in a table was divided by, and how far that moved.
pub fn print_yardsticks(results: &Results) {
    let plan = &results.plan;
    for (index, (case, columns)) in plan.yardsticks.iter().zip(&results.yardsticks).enumerate() {
        let users: Vec<&str> =
            plan.rows.iter().filter(|row| row.against == index).map(|row| row.case.name).collect();
        if users.is_empty() {
            continue;
        }
        let ranges: Vec<String> = columns
            .iter()
            .zip(&plan.specs)
            .map(|(series, spec)| {
                let (low, high) = series.range();
                format!("{}: {} to {}", bytes(spec.size), figure(low), figure(high))
            })
            .collect();
        println!("Divided by **{}**: {}.", case.name, users.join(", "));
        println!("It moved over the runs, by size: {}.\n", ranges.join(", "));
    }
}

/// What one reading of the clock costs, in nanoseconds: part of every latency timed by itself.
pub fn clock_cost_ns() -> f64 {
    let (started, reads) = (Instant::now(), 100_000);
    let mut last = started;
    for _ in 0..reads {
        last = std::hint::black_box(Instant::now());
    }
    (last - started).as_nanos() as f64 / f64::from(reads)
}
