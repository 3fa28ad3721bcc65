//! The goals, and whether this run reached them.
//!
//! The round trip and throughput benches print them last.
//! What always holds: a goal whose rows were not measured is not printed, and nothing is rounded
//! before it is compared.

use comfy_table::{Table, presets};

use super::plan::Results;
use super::table::{bytes, figure};

/// One goal: a ratio with a bound.
#[derive(Debug)]
struct Goal {
    what: String,
    ratio: f64,
    bound: f64,
    at_most: bool,
}

/// The goals that could be checked.
#[derive(Debug, Default)]
pub struct Goals(Vec<Goal>);

impl Goals {
    /// A row by its yardstick is at most `bound`, at each of these sizes.
    pub fn yardstick_at_most(&mut self, results: &Results, row: &str, sizes: &[usize], bound: f64) {
        for size in sizes {
            let Some((series, yardstick)) = results.row(row, *size) else { continue };
            self.push(
                results,
                format!("{row}, by {yardstick}"),
                *size,
                series.ratio(),
                bound,
                true,
            );
        }
    }

    /// A row by its yardstick is at least `bound`.
    pub fn yardstick_at_least(
        &mut self,
        results: &Results,
        row: &str,
        sizes: &[usize],
        bound: f64,
    ) {
        for size in sizes {
            let Some((series, yardstick)) = results.row(row, *size) else { continue };
            let what = format!("{row}, by {yardstick}");
            self.push(results, what, *size, series.ratio(), bound, false);
        }
    }

    /// A row by another one is at most `bound`.
    pub fn at_most(&mut self, results: &Results, pair: [&str; 2], sizes: &[usize], bound: f64) {
        self.pair(results, pair, sizes, bound, true);
    }

    /// A row by another one is at least `bound`.
    pub fn at_least(&mut self, results: &Results, pair: [&str; 2], sizes: &[usize], bound: f64) {
        self.pair(results, pair, sizes, bound, false);
    }

    /// A figure of no plan is at most `bound`.
    pub fn at_most_of(&mut self, what: String, figure: f64, bound: f64) {
        self.0.push(Goal { what, ratio: figure, bound, at_most: true });
    }

    fn pair(
        &mut self,
        results: &Results,
        [row, other]: [&str; 2],
        sizes: &[usize],
        bound: f64,
        at_most: bool,
    ) {
        for size in sizes {
            let Some((mine, _)) = results.row(row, *size) else { continue };
            let Some((theirs, _)) = results.row(other, *size) else { continue };
            let what = format!("{row}, by {other}");
            self.push(results, what, *size, mine.ratio_to(theirs), bound, at_most);
        }
    }

    fn push(
        &mut self,
        results: &Results,
        what: String,
        size: usize,
        ratio: f64,
        bound: f64,
        at_most: bool,
    ) {
        let what = format!("{}: {what}, {}", results.plan.title, bytes(size));
        self.0.push(Goal { what, ratio, bound, at_most });
    }

    /// Prints the table.
    pub fn print(&self) {
        if !self.0.is_empty() {
            println!("## Goals\n\n{}\n", self.render());
        }
    }

    /// The table.
    pub fn render(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN);
        table.set_header(["goal", "bound", "measured", "reached"]);
        for goal in &self.0 {
            let (sign, reached) = match goal.at_most {
                true => ("at most", goal.ratio <= goal.bound),
                false => ("at least", goal.ratio >= goal.bound),
            };
            table.add_row([
                goal.what.clone(),
                format!("{sign} {}", goal.bound),
                figure(goal.ratio),
                if reached { "yes" } else { "no" }.to_owned(),
            ]);
        }
        table
    }
}
