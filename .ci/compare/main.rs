//! Times and runs the cases of two commits in one process. `.ci/ab` builds and runs it.
//!
//! Invariant: both commits do the same work, in turns, with inputs that the compiler cannot see through.

use std::env;
use std::time::{Duration, Instant};

/// Operations in each half of a case.
const OPS: u64 = 128;
/// Rounds before anything counts.
const WARM_UP: usize = 20;
/// Rounds that are counted by their instructions.
const COUNTED: usize = 20;

/// Two halves that alternate: the second undoes the first, or needs it.
trait Case {
    fn first(&mut self);
    fn second(&mut self);
}

/// A case, and what its halves are called.
struct Row {
    case: &'static str,
    halves: [&'static str; 2],
    make: fn() -> Box<dyn Case>,
}

mod old {
    use ringway_old as ringway;
    include!("old.rs");
}

mod new {
    use ringway_new as ringway;
    include!("new.rs");
}

/// What both commits have. The interface may have changed; the names of rows say what is the same.
fn pairs() -> Vec<[Row; 2]> {
    let mut old = old::rows();
    let pair = |new: Row| {
        let at = old.iter().position(|old| (old.case, old.halves) == (new.case, new.halves))?;
        Some([old.swap_remove(at), new])
    };
    new::rows().into_iter().filter_map(pair).collect()
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_nanos() as f64 / OPS as f64
}

/// Prints what an operation of each half takes, in nanoseconds, old and new. What is first is made first, too, so
/// that neither always gets the better addresses.
fn time(first_is_new: bool, rounds: usize) {
    for pair in pairs() {
        let first = usize::from(first_is_new);
        let made = [(pair[first].make)(), (pair[1 - first].make)()];
        let mut cases = if first_is_new {
            let [new, old] = made;
            [old, new]
        } else {
            made
        };
        let mut times = [const { [const { Vec::new() }; 2] }; 2];
        for round in 0..WARM_UP + rounds {
            for turn in 0..2 {
                let side = usize::from((turn == 1) ^ first_is_new);
                let started = Instant::now();
                cases[side].first();
                let halfway = Instant::now();
                cases[side].second();
                let ended = Instant::now();
                if round >= WARM_UP {
                    times[side][0].push(halfway - started);
                    times[side][1].push(ended - halfway);
                }
            }
        }
        let [old, new] = times.map(|halves| halves.map(median));
        for half in 0..2 {
            println!("{} {}\t{}\t{}", pair[0].case, pair[0].halves[half], old[half], new[half]);
        }
    }
}

/// Callgrind counts what runs inside of this function.
#[inline(never)]
fn count_these_instructions(case: &mut dyn Case, half: usize) {
    if half == 0 { case.first() } else { case.second() }
}

/// Runs one half of a case where its instructions are counted; prints how many operations that are.
fn count(side: usize, number: usize, half: usize) {
    let mut case = (pairs()[number][side].make)();
    for round in 0..WARM_UP + COUNTED {
        for turn in 0..2 {
            if round >= WARM_UP && turn == half {
                count_these_instructions(&mut *case, half);
            } else if turn == 0 {
                case.first();
            } else {
                case.second();
            }
        }
    }
    println!("{}", COUNTED as u64 * OPS);
}

fn main() {
    let words: Vec<String> = env::args().skip(1).collect();
    let number = |at: usize| words[at].parse::<usize>().expect("a number");
    match words[0].as_str() {
        "rows" => pairs().iter().for_each(|[row, _]| {
            println!("{} {}\n{} {}", row.case, row.halves[0], row.case, row.halves[1]);
        }),
        "time" => time(words[1] == "new", number(2)),
        "count" => count(number(1), number(2), number(3)),
        other => panic!("no {other}"),
    }
}
