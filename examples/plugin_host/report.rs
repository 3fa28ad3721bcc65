//! What is printed at the end, and whether it adds up.

use std::error::Error;

use comfy_table::Table;
use hdrhistogram::Histogram;

use crate::plugin::Observed;
use crate::stream::{Kill, Outcome};
use crate::work::Totals;

/// Prints totals and figures.
pub fn print(outcome: &Outcome, expected: &Totals) {
    let mut table = Table::new();
    table.set_header(["total", "by the plugins", "in the store", "by one process alone"]);
    let columns = [&outcome.totals, &outcome.stored, expected].map(rows);
    for (row, (name, _)) in rows(expected).iter().enumerate() {
        let values = columns.iter().map(|column| column[row].1.clone());
        table.add_row([(*name).to_string()].into_iter().chain(values));
    }
    println!("{table}");
    print_speed(outcome);
    let Observed { looks, changes, .. } = outcome.observed;
    println!("observed from another process: {changes} changes of totals in {looks} looks");
    if outcome.kills.is_empty() {
        println!("no plugin was killed");
    }
    outcome.kills.iter().for_each(print_kill);
    println!("{} answers came again after kills", outcome.redelivered);
}

fn rows(totals: &Totals) -> [(&'static str, String); 6] {
    [
        ("lines", totals.lines.to_string()),
        ("words", totals.words.to_string()),
        ("bytes", totals.bytes.to_string()),
        ("longest line", totals.longest_line.to_string()),
        ("longest word", totals.longest_word.to_string()),
        ("digest", format!("{:016x}", totals.digest)),
    ]
}

fn print_speed(outcome: &Outcome) {
    let seconds = outcome.stream_time.as_secs_f64();
    if outcome.stream_messages > 0 && seconds > 0.0 {
        println!(
            "streaming: {} messages in {seconds:.3} s: {:.0} messages/s, {:.1} MB/s, each answered",
            outcome.stream_messages,
            outcome.stream_messages as f64 / seconds,
            outcome.stream_bytes as f64 / seconds / 1e6,
        );
    }
    for (what, histogram) in
        [("one at a time", &outcome.round_trips), ("while streaming", &outcome.streamed)]
    {
        if !histogram.is_empty() {
            println!("round trip, {what}: {}", percentiles(histogram));
        }
    }
}

fn percentiles(histogram: &Histogram<u64>) -> String {
    let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
    format!(
        "p50 {:.1} µs, p99 {:.1} µs, p99.9 {:.1} µs, of {}",
        at(0.5),
        at(0.99),
        at(0.999),
        histogram.len()
    )
}

fn print_kill(kill: &Kill) {
    println!(
        "killed {}, process {}, with {} messages in flight",
        kill.plugin, kill.pid, kill.in_flight
    );
    if let Some((after, reason)) = kill.noticed {
        println!("noticed after {after:?}: {reason}");
    }
    if let Some(restart) = kill.restart {
        println!(
            "restarted after {:?} as process {} ({:?} from noticing to ready); {} unread messages \
             carried over",
            restart.after, restart.pid, restart.downtime, restart.carried
        );
    }
}

/// Whether everything adds up.
pub fn check(outcome: &Outcome, expected: &Totals) -> Result<(), Box<dyn Error>> {
    let mut wrong = outcome.mishaps.clone();
    if outcome.totals != *expected {
        wrong.push("the totals differ".into());
    }
    if outcome.stored != *expected {
        wrong.push("the totals in the store differ".into());
    }
    if outcome.observed.wrong > 0 || outcome.observed.changes == 0 {
        wrong.push(format!("the observer saw what cannot be: {:?}", outcome.observed));
    }
    let mut carried = 0;
    for kill in &outcome.kills {
        match kill.restart {
            Some(restart) if kill.noticed.is_some() => carried += restart.carried,
            _ => wrong.push("a killed plugin was not restarted".into()),
        }
    }
    if outcome.redelivered > carried {
        wrong.push(format!(
            "{} answers came again, but only {carried} messages were carried over",
            outcome.redelivered
        ));
    }
    if wrong.is_empty() {
        println!("everything adds up: nothing was lost, and the host sent nothing twice");
        return Ok(());
    }
    Err(wrong.join("; ").into())
}
