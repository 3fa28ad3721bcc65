//! A host that streams every line of some files to plugin processes, kills two of them in the
//! middle, and loses nothing.
//!
//! ```text
//! cargo run --release --example plugin_host -- [PATH…]
//! ```
//!
//! The plugins are this very program, executed again: a process that finds itself started by a host
//! becomes a plugin. The host sends each line once and never again; what a plugin had not finished
//! with when it was killed, the ring delivers to its successor. The plugins keep running totals in the
//! host's store, where one more plugin, which has it read-only, looks
//! at them meanwhile. At the end every total must equal what one process computes alone, in the answers
//! and in the store, or the program fails.

mod corpus;
mod plugin;
mod report;
mod stream;
mod work;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use corpus::Corpus;

/// Streams the lines of files through plugin processes, kills two, and checks that nothing is lost.
#[derive(Debug, Parser)]
#[command(name = "plugin_host")]
pub struct Arguments {
    /// Files to stream; this repository's own text files unless given.
    paths: Vec<PathBuf>,
    /// Plugin processes.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    plugins: u16,
    /// Repeat the files until at least this many lines have been streamed.
    #[arg(long, default_value_t = 10_000_000)]
    min_messages: u64,
    /// Lines in flight to each plugin.
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u64).range(1..=65536))]
    window: u64,
    /// Kill the first plugin when this many lines have been sent; a third of all unless given. The second
    /// one is killed halfway from there to the end.
    #[arg(long, conflicts_with = "no_kill", value_parser = clap::value_parser!(u64).range(1..))]
    kill_at: Option<u64>,
    /// Kill no plugin.
    #[arg(long)]
    no_kill: bool,
}

fn main() -> ExitCode {
    let result = if plugin::is_plugin() { plugin::run() } else { host() };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("plugin_host: {error}");
            ExitCode::FAILURE
        }
    }
}

fn host() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    // Everything that can be wrong with the files is wrong before a process is started.
    let corpus = Corpus::load(&arguments.paths)?;
    let passes = arguments.min_messages.div_ceil(corpus.lines()).max(1);
    let total = passes * corpus.lines();
    let kill_at = match arguments.kill_at {
        _ if arguments.no_kill => None,
        None => Some((total / 3).max(1)),
        Some(at) if at <= total => Some(at),
        Some(at) => return Err(format!("--kill-at {at}: only {total} lines are sent").into()),
    };
    println!(
        "{} files, {} lines, {} bytes, streamed {passes} times: {total} messages to {} plugins",
        corpus.files(),
        corpus.lines(),
        corpus.bytes(),
        arguments.plugins
    );
    let outcome = stream::run(&arguments, &corpus, total, kill_at)?;
    let expected = work::alone(&corpus, passes);
    report::print(&outcome, &expected);
    report::check(&outcome, &expected)
}
