//! A host, two neighbours and an attacker, from the first start to the last trace.
//!
//! Invariants: the attacker was started last and is ended first; the neighbours end by themselves when they are
//! told to.

use std::env;
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ringway::error::ExitReason;
use ringway::host::{Host, HostEventKind, PluginHandle, PluginSpec, PluginState};
use ringway::layout::store::GENERATION;
use ringway::store::{Store, StoreOptions};

use crate::attack::counters::{Count, Counters};
use crate::attack::{Attack, Opportunity, user};
use crate::common::plugin::NEVER;
use crate::neighbour::{self, Memory, PATIENCE, number, use_store, value};
use crate::pace::Pace;

/// How this program is started again.
const ARGUMENTS: [&str; 4] = ["--exact", "plugin_entry", "--nocapture", "--test-threads=1"];

fn attack_time() -> Duration {
    let seconds = env::var("RINGWAY_ATTACK_SECONDS").ok();
    Duration::from_secs(seconds.map_or(1, |seconds| seconds.parse().expect("a number of seconds")))
}

/// The first bytes of the public part of a store, for its host only.
fn with_first_page<T>(store: &Store, look: impl FnOnce(&AtomicU64) -> T) -> T {
    // SAFETY: what is written below is one word, and that before anybody else has the store.
    let files = unsafe { store.descriptor_writable() }.unwrap();
    let (access, shared) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
    // SAFETY: a new mapping, whose place the kernel chooses.
    let map = unsafe { libc::mmap(null_mut(), 4096, access, shared, files.public.as_raw_fd(), 0) };
    assert_ne!(map, libc::MAP_FAILED, "{}", io::Error::last_os_error());
    // SAFETY: inside the mapping.
    let word = unsafe { map.byte_add(GENERATION as usize) };
    // SAFETY: aligned, mapped until below, and used as an atomic by everybody.
    let result = look(unsafe { AtomicU64::from_ptr(word.cast()) });
    // SAFETY: the word is not used any more.
    unsafe { libc::munmap(map, 4096) };
    result
}

/// The generation of the store's root.
fn generation(store: &Store) -> u64 {
    with_first_page(store, |word| word.load(Ordering::Relaxed))
}

/// The flags of this process's own standard streams.
fn stream_flags() -> [i32; 3] {
    // SAFETY: the call takes numbers.
    [0, 1, 2].map(|stream| unsafe { libc::fcntl(stream, libc::F_GETFL) })
}

/// What a process has that must not be left.
#[derive(Debug)]
struct Traces {
    descriptors: usize,
    threads: usize,
    /// Files in /dev/shm of the users of the plugins.
    files: usize,
}

impl Traces {
    /// Whether there is no more than before, when the end of another host may not have been complete.
    fn is_within(&self, before: &Self) -> bool {
        self.descriptors <= before.descriptors
            && self.threads <= before.threads
            && self.files <= before.files
    }

    fn now() -> Self {
        let count = |path| fs::read_dir(path).map_or(0, Iterator::count);
        let is_ours = |entry: io::Result<fs::DirEntry>| {
            let found = entry.and_then(|entry| entry.metadata());
            found.is_ok_and(|found| (user(0)..user(8)).contains(&found.uid()))
        };
        let files = fs::read_dir("/dev/shm")
            .map_or(0, |all| all.filter_map(|entry| is_ours(entry).then_some(())).count());
        Self { descriptors: count("/proc/self/fd"), threads: count("/proc/self/task"), files }
    }
}

/// What an attack has come to.
pub struct Told {
    pub hits: u64,
    pub failed_starts: u64,
    pub restarts: u64,
    pub dropped: u64,
    /// The last generation of the store's root.
    pub generation: u64,
}

/// A host and what it was started with.
pub struct Scene {
    before: Traces,
    host: Host,
    neighbours: [(PluginHandle, Counters); 2],
}

fn host() -> Host {
    let options = StoreOptions { capacity_bytes: 4 << 20, ..StoreOptions::default() };
    Host::builder().store(options).links().answer_pings().build().unwrap()
}

fn neighbour(host: &Host, role: &str, is_trusted: bool) -> (PluginHandle, Counters) {
    let counters = Counters::new();
    let spec = PluginSpec::new(role, "/proc/self/exe")
        .args(ARGUMENTS)
        .env(neighbour::ROLE, role)
        .stdin(counters.stream())
        .ready_timeout(NEVER)
        .notice(NEVER);
    let spec = if is_trusted {
        // SAFETY: the neighbour writes by way of this library only.
        unsafe { spec.trust_with_store() }
    } else {
        spec.run_as(user(1), user(1)).stderr(ringway::host::Stdio::inherit())
    };
    (host.spawn(spec).unwrap(), counters)
}

impl Scene {
    pub fn new() -> Self {
        Self::with_generation(7)
    }

    /// The generation of the store's root starts here.
    pub fn with_generation(start: u64) -> Self {
        // Orphans of plugins become children of this process.
        // SAFETY: the call takes numbers.
        unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
        // What the library keeps for the whole process is there before it is counted.
        let first = host();
        drop(neighbour(&first, "visitor", false));
        first.shutdown(NEVER).unwrap();
        drop(first);
        let before = Traces::now();
        let host = host();
        with_first_page(&host.store().unwrap(), |word| word.store(start, Ordering::Relaxed));
        let neighbours = [("talker", false), ("listener", true)]
            .map(|(role, is_trusted)| neighbour(&host, role, is_trusted));
        Self { before, host, neighbours }
    }

    /// Attacks, for as long as was asked for, and ends everything.
    pub fn attacked(self, attack: Attack) -> Told {
        let mut opportunity = Opportunity::new(attack, &self.host, &ARGUMENTS);
        let flags = stream_flags();
        let (over, begun) = (AtomicBool::new(false), Instant::now());
        let mut told = Told { hits: 0, failed_starts: 0, restarts: 0, dropped: 0, generation: 0 };
        thread::scope(|scope| {
            let attacked = scope.spawn(|| {
                let mut pace = Pace::new();
                while !over.load(Ordering::Relaxed) {
                    opportunity.turn(&mut |what, deadline, took| pace.took(what, deadline, took));
                }
                println!("  of the attacker: {} calls, {:?}", pace.calls, pace.worst);
                told.dropped = opportunity.dropped();
            });
            // Also where an assertion fails, so that the other thread ends.
            let work = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                self.work(begun, attack, &mut told.failed_starts, &mut told.restarts)
            }));
            over.store(true, Ordering::Relaxed);
            attacked.join().unwrap();
            work.unwrap();
        });
        let is_restarted = matches!(attack, Attack::StopStarts | Attack::Streams);
        let state = opportunity.handle.state();
        assert!(is_restarted || state == PluginState::Running, "the attacker has ended: {state:?}");
        assert_eq!(stream_flags(), flags, "the host's own streams are as they were");
        told.generation = generation(&self.host.store().unwrap());
        self.end(opportunity, told)
    }

    /// What the host does beside.
    fn work(&self, begun: Instant, attack: Attack, failed_starts: &mut u64, restarts: &mut u64) {
        let (mut pace, memory) = (Pace::new(), Memory::now());
        let store = self.host.store().unwrap();
        let mut channels =
            self.neighbours.each_ref().map(|(handle, _)| handle.take_channels().unwrap().0);
        let mut round = 0;
        let mut has_begun = false;
        while begun.elapsed() < attack_time() || round < 20 || !has_begun {
            assert!(begun.elapsed() < attack_time() + NEVER, "the attack has no effect");
            round += 1;
            let message = value(round);
            for channel in &mut channels {
                pace.call("Channel::send_timeout", PATIENCE, || {
                    channel.send_timeout(&message, PATIENCE).unwrap();
                });
                let answer = pace.call("Channel::recv_timeout", PATIENCE, || {
                    number(&channel.recv_timeout(PATIENCE).unwrap())
                });
                assert_eq!(answer, round);
            }
            use_store(&mut pace, &store, "host", "listener", round);
            let config = vec![format!("round {round}"), "second".to_owned()];
            pace.call("Store::set_archived", PATIENCE, || {
                store.set_archived("config", &config).unwrap()
            });
            pace.call("Store::get_archived", PATIENCE, || {
                if let Some(found) = store.get_archived::<Vec<String>>("config").unwrap() {
                    assert!(found.iter().eq(&config), "{round}");
                }
            });
            for (handle, _) in &self.neighbours {
                let state = pace.call("PluginHandle::state", PATIENCE, || handle.state());
                assert_eq!(state, PluginState::Running);
                let same = pace.call("Host::plugin", PATIENCE, || self.host.plugin(handle.name()));
                assert_eq!(same.unwrap().pid(), handle.pid());
            }
            while let Some(event) =
                pace.call("Host::next_event", PATIENCE, || self.host.next_event(Duration::ZERO))
            {
                match event.kind {
                    HostEventKind::StartFailed { .. } => *failed_starts += 1,
                    HostEventKind::Restarted { .. } => *restarts += 1,
                    HostEventKind::Died { reason, .. } if event.plugin == "attacker" => {
                        assert_ne!(reason, ExitReason::Code(101), "the attacker has succeeded");
                    }
                    HostEventKind::Died { reason, .. } => {
                        assert_eq!(
                            (event.plugin.as_str(), reason),
                            ("visitor", ExitReason::Code(0))
                        );
                    }
                    _ => {}
                }
            }
            has_begun = attack != Attack::Streams || *restarts > 1;
            // A child has copies of all descriptors of the host. It closes them when it executes its program, and
            // waits there for a file system that does not answer.
            if round % 200 == 10 && attack != Attack::Silent {
                let (visitor, _counters) =
                    pace.call("Host::spawn", NEVER, || neighbour(&self.host, "visitor", false));
                let ended = pace.call("PluginHandle::terminate", NEVER, || visitor.terminate());
                assert_eq!(ended, Ok(ExitReason::Code(0)));
            }
        }
        memory.check();
        println!("  of the host: {} calls, {:?}", pace.calls, pace.worst);
    }

    fn end(self, mut opportunity: Opportunity, told: Told) -> Told {
        opportunity.close();
        let ended = self.host.shutdown(NEVER).unwrap();
        let order: Vec<_> = ended.iter().map(|ended| ended.plugin.as_str()).collect();
        let order: Vec<_> = order.into_iter().filter(|name| *name != "visitor").collect();
        assert_eq!(order, ["attacker", "listener", "talker"]);
        for ended in ended.iter().filter(|ended| ended.plugin != "attacker") {
            assert_eq!(
                (ended.reason, ended.killed),
                (Some(ExitReason::Code(0)), false),
                "{ended:?}"
            );
        }
        for (handle, counters) in &self.neighbours {
            let worst = Duration::from_nanos(counters.get(Count::WorstNs));
            println!(
                "  of the {}: {} rounds, {worst:?}",
                handle.name(),
                counters.get(Count::Attempts)
            );
            assert!(counters.get(Count::Attempts) > 0, "it has done nothing");
        }
        opportunity.end_orphan();
        let [attempts, hits] =
            [Count::Attempts, Count::Hits].map(|count| opportunity.counters.get(count));
        println!("  the attacker: {attempts} attempts, {hits} hits");
        assert!(attempts > 0 && hits > 0, "{attempts} attempts, {hits} hits");
        drop((self.host, self.neighbours, opportunity));
        // SAFETY: a null status is allowed.
        let child = unsafe { libc::waitpid(-1, null_mut(), libc::WNOHANG) };
        assert_eq!(child, -1, "no child is left, dead or alive");
        // Threads that are about to end may take a moment.
        let begun = Instant::now();
        while !Traces::now().is_within(&self.before) {
            assert!(begun.elapsed() < NEVER, "{:?}, {:?} before", Traces::now(), self.before);
            thread::yield_now();
        }
        Told { hits, ..told }
    }
}
