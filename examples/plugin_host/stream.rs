//! The host: one thread that keeps all plugins busy, and kills one of them.

use std::collections::VecDeque;
use std::env;
use std::error::Error;
use std::io::IoSlice;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use ringway::channel::{Channel, ChannelOptions, Event, Selector, Sender};
use ringway::error::{ExitReason, RecvError, TrySendError};
use ringway::host::{Host, HostEventKind, PluginHandle, PluginSpec, Restart};
use ringway::store::StoreOptions;

use crate::Arguments;
use crate::corpus::Corpus;
use crate::plugin::{LINES_AT_ONCE, Number, OBSERVER, Observed, totals_key};
use crate::work::{Answer, Totals};

/// This many lines at the start are sent one at a time, to see what a round trip takes.
const ALONE: u64 = 20_000;
/// Answers taken from one plugin in a row.
const BUDGET: usize = 256;
/// No answer for so long is a failure.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a run has shown.
#[derive(Debug)]
pub struct Outcome {
    pub totals: Totals,
    /// Of lines sent one at a time, in nanoseconds.
    pub round_trips: Histogram<u64>,
    /// Of lines sent with many others in flight, in nanoseconds.
    pub streamed: Histogram<u64>,
    pub stream_messages: u64,
    pub stream_bytes: u64,
    pub stream_time: Duration,
    /// Answers that had come before.
    pub redelivered: u64,
    pub kills: Vec<Kill>,
    /// The totals that the readers have kept in the store.
    pub stored: Totals,
    pub observed: Observed,
    /// Deaths that nobody has asked for, and plugins that did not end well.
    pub mishaps: Vec<String>,
}

/// What became of the plugin that was killed.
#[derive(Debug)]
pub struct Kill {
    pub plugin: String,
    pub pid: u32,
    pub at: Instant,
    /// Sent and not answered when it was killed, as the host saw it.
    pub in_flight: u64,
    /// When the host found it dead, and of what.
    pub noticed: Option<(Duration, ExitReason)>,
    pub restart: Option<Restarted>,
}

/// What the host said about the restart.
#[derive(Debug, Clone, Copy)]
pub struct Restarted {
    pub pid: u32,
    /// From the kill until the successor was ready.
    pub after: Duration,
    /// From noticing until then.
    pub downtime: Duration,
    /// Messages that the killed plugin had not finished with.
    pub carried: u64,
}

/// A plugin, as the host sees it.
struct Worker {
    handle: PluginHandle,
    sender: Sender,
    sent: u64,
    /// The number of the answer that comes next.
    answered: u64,
    /// When the lines in flight were sent.
    sent_at: VecDeque<Instant>,
    redelivered: u64,
}

impl Worker {
    fn in_flight(&self) -> u64 {
        self.sent - self.answered
    }

    /// Sends a line if there is room; it is never sent again.
    fn send(&mut self, line: &[u8]) -> Result<bool, TrySendError> {
        let number = self.sent.to_ne_bytes();
        let parts = [IoSlice::new(&number), IoSlice::new(line)];
        let sent_at = Instant::now();
        let result = match self.sender.try_send_vectored(0, &parts) {
            // It says so once, and has sent nothing.
            Err(TrySendError::Restarted { .. }) => self.sender.try_send_vectored(0, &parts),
            result => result,
        };
        match result {
            Ok(()) => {
                self.sent += 1;
                self.sent_at.push_back(sent_at);
                Ok(true)
            }
            Err(TrySendError::Full) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Takes an answer; returns how long it took, or `None` where it has come before.
    fn take(&mut self, answer: &Answer) -> Result<Option<Duration>, String> {
        if answer.number < self.answered {
            self.redelivered += 1;
            return Ok(None);
        }
        match self.sent_at.pop_front() {
            Some(sent_at) if answer.number == self.answered => {
                self.answered += 1;
                Ok(Some(sent_at.elapsed()))
            }
            _ => Err(format!(
                "{}: line {} has not been answered, line {} has",
                self.handle.name(),
                self.answered,
                answer.number
            )),
        }
    }
}

/// Streams `total` lines.
pub fn run(
    arguments: &Arguments,
    corpus: &Corpus,
    total: u64,
    kill_at: Option<u64>,
) -> Result<Outcome, Box<dyn Error>> {
    let options = options(corpus)?;
    let store_options = StoreOptions { capacity_bytes: 1 << 20, ..StoreOptions::default() };
    let lines_at_once = Number(lines_at_once(&options, corpus));
    let host = Host::builder().channel_options(options).store(store_options).build()?;
    let store = host.store()?;
    store.set_pod(LINES_AT_ONCE, &lines_at_once)?;
    let (workers, selector) = start(&host, arguments.plugins)?;
    let observer = Observer::start(&host)?;
    let bar = progress_bar(total);
    let window = arguments.window;
    let mut stream = Stream {
        corpus,
        total,
        kill_at,
        second_kill_at: kill_at
            .filter(|_| workers.len() > 1)
            .map(|at| at + (total - at).div_ceil(2))
            .filter(|at| kill_at != Some(*at)),
        window,
        workers,
        selector,
        sent: 0,
        answered: 0,
    };
    let mut outcome = Outcome::new()?;
    let mut streaming_since = None;
    let mut last_answer = Instant::now();
    while stream.answered < total {
        if !stream.is_alone() && streaming_since.is_none() {
            streaming_since = Some((Instant::now(), stream.answered, outcome.totals.bytes));
        }
        stream.fill()?;
        if let Some(victim) = stream.victim(outcome.kills.len()) {
            outcome.kills.push(kill(victim)?);
        }
        if stream.collect(&mut outcome)? > 0 {
            last_answer = Instant::now();
            bar.set_position(stream.answered);
        } else if last_answer.elapsed() > PATIENCE {
            return Err(format!("no answer for {PATIENCE:?}").into());
        }
        outcome.hear(&host, Duration::ZERO, &bar);
    }
    bar.finish_and_clear();
    if let Some((since, messages, bytes)) = streaming_since {
        outcome.stream_time = since.elapsed();
        outcome.stream_messages = stream.answered - messages;
        outcome.stream_bytes = outcome.totals.bytes - bytes;
    }
    outcome.finish(&host, stream);
    outcome.observed = observer.finish()?;
    for number in 0..arguments.plugins {
        let totals = store.get_pod::<Totals>(totals_key(&reader(number)))?;
        outcome.stored = totals.map_or(outcome.stored, |totals| outcome.stored.and(&totals));
    }
    store.check()?;
    Ok(outcome)
}

fn reader(number: u16) -> String {
    format!("reader-{number}")
}

/// The plugin that looks at the totals while the readers work.
struct Observer(PluginHandle, Channel);

impl Observer {
    fn start(host: &Host) -> Result<Self, Box<dyn Error>> {
        // Not trusted with the store, which it has read-only.
        let handle = host.spawn(PluginSpec::new(OBSERVER, env::current_exe()?))?;
        let (active, _passive) = handle.take_channels()?;
        Ok(Self(handle, active))
    }

    fn finish(self) -> Result<Observed, Box<dyn Error>> {
        let Self(handle, mut active) = self;
        active.send(b"what have you seen?")?;
        let observed = bytemuck::try_pod_read_unaligned(&active.recv_timeout(PATIENCE)?)
            .map_err(|error| error.to_string())?;
        match handle.wait_exit(PATIENCE)? {
            ExitReason::Code(0) => Ok(observed),
            reason => Err(format!("{OBSERVER}: {reason}").into()),
        }
    }
}

/// Lets a plugin use the store as the host does.
#[allow(unsafe_code)]
fn trusted(spec: PluginSpec) -> PluginSpec {
    // SAFETY: it is this very program, which writes to the store by way of the library only.
    unsafe { spec.trust_with_store() }
}

/// Starts the readers.
fn start(host: &Host, plugins: u16) -> Result<(Vec<Worker>, Selector), Box<dyn Error>> {
    let mut selector = Selector::new();
    let mut workers = Vec::new();
    for number in 0..plugins {
        let spec =
            PluginSpec::new(reader(number), env::current_exe()?).restart(Restart::on_failure());
        let handle = host.spawn(trusted(spec))?;
        let (active, _passive) = handle.take_channels()?;
        let (sender, receiver) = active.split();
        // Tokens count up from 0, as the workers do.
        selector.add(receiver);
        let sent_at = VecDeque::new();
        workers.push(Worker { handle, sender, sent: 0, answered: 0, sent_at, redelivered: 0 });
    }
    Ok((workers, selector))
}

/// How far the lines have got.
struct Stream<'a> {
    corpus: &'a Corpus,
    total: u64,
    kill_at: Option<u64>,
    second_kill_at: Option<u64>,
    window: u64,
    workers: Vec<Worker>,
    selector: Selector,
    sent: u64,
    answered: u64,
}

impl Stream<'_> {
    /// Whether lines are still sent one at a time.
    fn is_alone(&self) -> bool {
        self.answered < ALONE.min(self.total)
    }

    /// Sends what may be sent now, to whoever has room; stops where a plugin is to be killed.
    fn fill(&mut self) -> Result<(), TrySendError> {
        let Self { corpus, workers, sent, .. } = self;
        if self.answered < ALONE.min(self.total) {
            // To one plugin only: the others sleep, and take no processor from it.
            if *sent == self.answered && workers[0].send(corpus.line(*sent))? {
                *sent += 1;
            }
            return Ok(());
        }
        let ahead = [self.kill_at, self.second_kill_at].into_iter().flatten();
        let until = ahead.filter(|at| *sent < *at).min().unwrap_or(self.total);
        for worker in workers {
            while *sent < until
                && worker.in_flight() < self.window
                && worker.send(corpus.line(*sent))?
            {
                *sent += 1;
            }
        }
        Ok(())
    }

    /// Who is to be killed now: the first reader where as much has been sent as was asked for, and the
    /// second one, if there is one, halfway from there to the end.
    fn victim(&self, killed: usize) -> Option<&Worker> {
        let at = [self.kill_at, self.second_kill_at].get(killed).copied().flatten()?;
        (self.sent == at).then(|| self.workers.get(killed))?
    }

    /// Waits for answers and takes what is there. Returns how many events there were.
    fn collect(&mut self, outcome: &mut Outcome) -> Result<usize, String> {
        let histogram =
            if self.is_alone() { &mut outcome.round_trips } else { &mut outcome.streamed };
        let (workers, answered, totals) =
            (&mut self.workers, &mut self.answered, &mut outcome.totals);
        let mut failure = None;
        let events = self.selector.poll(BUDGET, Duration::from_millis(100), |token, event| {
            let worker = &mut workers[token];
            let taken = match event {
                Event::Message(message) => match bytemuck::try_pod_read_unaligned(&message) {
                    Ok::<Answer, _>(answer) => worker.take(&answer).map(|time| {
                        let Some(time) = time else { return };
                        // The histogram grows as it must.
                        let _ = histogram.record(time.as_nanos() as u64);
                        totals.add(&answer.findings);
                        *answered += 1;
                    }),
                    Err(_) => Err(format!("an answer of {} bytes", message.len())),
                },
                Event::Error(RecvError::Restarted { .. }) => Ok(()),
                Event::Error(error) => Err(format!("{}: {error}", worker.handle.name())),
            };
            failure = failure.take().or(taken.err());
        });
        failure.map_or(Ok(events), Err)
    }
}

/// Rings in which the longest line fits.
fn options(corpus: &Corpus) -> Result<ChannelOptions, String> {
    let longest = corpus.longest();
    let capacity_bytes = ChannelOptions::capacity_for(longest as u64 + 8)
        .ok_or_else(|| format!("the longest line has {longest} bytes: no ring takes that much"))?;
    Ok(ChannelOptions {
        capacity_bytes: capacity_bytes.max(256 << 10),
        reply_capacity_bytes: Some(256 << 10),
        ..ChannelOptions::default()
    })
}

/// How many lines a reader may take before it gives their room back: fewer than make it do so by itself.
fn lines_at_once(options: &ChannelOptions, corpus: &Corpus) -> u64 {
    (options.capacity_bytes / 8 / (corpus.longest() as u64 + 32)).clamp(1, 256)
}

/// Kills a plugin with SIGKILL.
fn kill(worker: &Worker) -> Result<Kill, String> {
    let pid = worker.handle.pid().ok_or("the plugin to be killed is dead already")?;
    let (at, in_flight) = (Instant::now(), worker.in_flight());
    worker.handle.kill().map_err(|error| error.to_string())?;
    let plugin = worker.handle.name().into();
    Ok(Kill { plugin, pid, at, in_flight, noticed: None, restart: None })
}

impl Outcome {
    fn new() -> Result<Self, Box<dyn Error>> {
        Ok(Self {
            totals: Totals::default(),
            round_trips: Histogram::new(3)?,
            streamed: Histogram::new(3)?,
            stream_messages: 0,
            stream_bytes: 0,
            stream_time: Duration::ZERO,
            redelivered: 0,
            kills: Vec::new(),
            stored: Totals::default(),
            observed: Observed::default(),
            mishaps: Vec::new(),
        })
    }

    /// Listens to what the host says about its plugins. Waits for the first event only.
    fn hear(&mut self, host: &Host, mut timeout: Duration, bar: &ProgressBar) {
        while let Some(event) = host.next_event(timeout) {
            timeout = Duration::ZERO;
            let name = &event.plugin;
            let mut kills = self.kills.iter_mut();
            match event.kind {
                HostEventKind::Started { .. } => {}
                HostEventKind::Died { pid, reason } => match kills.find(|kill| kill.pid == pid) {
                    Some(kill) => {
                        let after = event.at.duration_since(kill.at);
                        kill.noticed = Some((after, reason));
                        bar.println(format!(
                            "{name} (process {pid}) {reason}: noticed after {after:?}"
                        ));
                    }
                    None => self.mishaps.push(format!("{name}: {reason}")),
                },
                HostEventKind::Restarted { pid, downtime, carried, .. } => {
                    let Some(kill) = kills.find(|kill| kill.plugin == *name) else { continue };
                    let after = event.at.duration_since(kill.at);
                    kill.restart = Some(Restarted { pid, after, downtime, carried });
                    bar.println(format!(
                        "{name} restarted as process {pid} after {after:?}, with {carried} unread \
                         messages"
                    ));
                }
                kind => self.mishaps.push(format!("{name}: {kind:?}")),
            }
        }
    }

    /// Hangs up and sees the plugins end by themselves.
    fn finish(&mut self, host: &Host, stream: Stream<'_>) {
        let Stream { workers, selector, .. } = stream;
        let bar = ProgressBar::hidden();
        if self.kills.iter().any(|kill| kill.restart.is_none()) {
            self.hear(host, PATIENCE, &bar);
        }
        drop(selector);
        for Worker { handle, sender, redelivered, .. } in workers {
            self.redelivered += redelivered;
            drop(sender);
            match handle.wait_exit(PATIENCE) {
                Ok(ExitReason::Code(0)) => {}
                end => self.mishaps.push(format!("{} ended with {end:?}", handle.name())),
            }
        }
    }
}

/// Shown only where standard error is a terminal.
fn progress_bar(total: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} lines {per_sec} {elapsed}");
    let bar = ProgressBar::new(total);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
