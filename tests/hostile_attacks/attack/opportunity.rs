//! What a host program does that gives an attacker the opportunity: it uses the attacker's channels, attaches what it
//! hands over, reads its streams, publishes to it.
//!
//! Invariants: every call names its deadline, and is reported with the time that it took.

use std::io::{PipeReader, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use ringway::channel::{Channel, ChannelOptions, SlotChannel};
use ringway::error::SegmentError;
use ringway::host::{Host, PluginHandle, PluginSpec, Restart, Stdio};
use ringway::segment::AnonymousSegment;
use ringway::store::{Store, StoreDescriptors, StoreQuota};
use ringway::topic::{PublishOptions, Publisher};

use super::counters::{Count, Counters};
use super::{ATTACK, Attack, passing, stalling};

/// Users from this one on are nobody's. Each process has eight of them.
pub const FIRST_USER: u32 = 1_000_000;

/// A user id that no other process on this machine has, 0 to 7 of this process.
pub fn user(number: u32) -> u32 {
    FIRST_USER + 8 * std::process::id() + number
}

/// How long the host program waits for an attacker in one call.
const PATIENCE: Duration = Duration::from_millis(20);
/// How long a start may take that is under attack.
const START: Duration = Duration::from_secs(10);
/// What a publisher keeps for one slow subscriber.
pub const QUEUE_BYTES: u64 = 64 << 10;

/// Takes the name of a call, its deadline, and how long it took.
pub type Report<'a> = &'a mut dyn FnMut(&'static str, Duration, Duration);

/// See the module.
pub struct Opportunity {
    attack: Attack,
    pub counters: Counters,
    pub handle: PluginHandle,
    socket: Option<UnixStream>,
    channels: Option<(Channel, Channel)>,
    ticks: Option<Publisher>,
    pipes: Vec<PipeReader>,
    handed_over: u64,
}

impl Opportunity {
    /// Starts the attacker: this program with these arguments, under a user id of its own.
    pub fn new(attack: Attack, host: &Host, arguments: &[&str]) -> Self {
        let counters = Counters::new();
        let (socket, far) = UnixStream::pair().unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let spec = PluginSpec::new("attacker", "/proc/self/exe")
            .args(arguments)
            .env(ATTACK, attack.name())
            .stdin(counters.stream())
            .run_as(user(0), user(0))
            .no_new_privs()
            // A request that takes no time is refused for its rate only.
            .store_quota(StoreQuota { max_changes_per_second: 10_000_000, ..StoreQuota::default() })
            .ready_timeout(Duration::from_secs(60))
            .grace(Duration::ZERO)
            .notice(Duration::ZERO);
        let again = Restart::OnFailure {
            max_restarts: u32::MAX,
            backoff_initial: Duration::ZERO,
            backoff_max: Duration::from_millis(1),
        };
        let spec = match attack {
            Attack::HugePages | Attack::Silent => spec.stderr(Stdio::from(OwnedFd::from(far))),
            Attack::StopStarts => {
                let moment = libc::timespec { tv_sec: 0, tv_nsec: 5_000_000 };
                let linger = move || {
                    // SAFETY: the time outlives the call.
                    unsafe { libc::nanosleep(&raw const moment, std::ptr::null_mut()) };
                    Ok(())
                };
                let spec = spec.restart(again).ready_timeout(START);
                // SAFETY: the hook makes a system call.
                unsafe { spec.pre_exec(linger) }
            }
            Attack::Streams => spec.stdout(Stdio::piped()).stderr(Stdio::piped()).restart(again),
            _ => spec,
        };
        let handle = host.spawn(spec).expect("the attacker starts");
        if attack == Attack::Silent {
            let file_system = stalling::make(user(0));
            if file_system.is_none() {
                println!("  no file system in user space to be had: only other descriptors");
            }
            let fds: Vec<_> = file_system.iter().flatten().map(AsRawFd::as_raw_fd).collect();
            passing::send(&socket, &fds).unwrap();
        }
        let uses_channels = !matches!(attack, Attack::StopStarts | Attack::Streams);
        Self {
            attack,
            counters,
            channels: uses_channels.then(|| handle.take_channels().unwrap()),
            handle,
            socket: Some(socket),
            ticks: (attack == Attack::Subscribe).then(|| {
                let options = PublishOptions { max_queue_bytes: QUEUE_BYTES, ..Default::default() };
                host.publisher_with("ticks", &options).unwrap()
            }),
            pipes: Vec::new(),
            handed_over: 0,
        }
    }

    /// Uses what the attacker attacks, once.
    pub fn turn(&mut self, report: Report<'_>) {
        match self.attack {
            Attack::HugePages | Attack::Silent => self.attach_what_comes(report),
            Attack::StopStarts => {
                timed("PluginHandle::wait_exit", PATIENCE, report, || {
                    let _ = self.handle.wait_exit(PATIENCE);
                });
            }
            Attack::Streams => self.read_streams(report),
            Attack::Subscribe => {
                let ticks = self.ticks.as_mut().unwrap();
                for _ in 0..1000 {
                    timed("Publisher::publish", Duration::from_secs(1), report, || {
                        ticks.publish(b"").unwrap();
                    });
                }
            }
            _ => self.use_channels(report),
        }
    }

    fn use_channels(&mut self, report: Report<'_>) {
        let (active, passive) = self.channels.as_mut().unwrap();
        for channel in [active, passive] {
            timed("Channel::send_timeout", PATIENCE, report, || {
                let _ = channel.send_timeout(&[7; 1000], PATIENCE);
            });
            timed("Channel::recv_timeout", PATIENCE, report, || {
                let _ = channel.recv_timeout(PATIENCE);
            });
        }
    }

    /// Attaches each descriptor in each way in which a host program could. What is no memory is refused.
    fn attach_what_comes(&mut self, report: Report<'_>) {
        let Some(mut socket) = self.socket.as_ref() else { return };
        let Some(fds) = passing::receive(socket) else { return };
        let mut fds: Vec<_> = fds.into_iter().collect();
        let options = ChannelOptions::default();
        let no_memory = self.attack == Attack::Silent || is_of_huge_pages(&fds[0]);
        let refused = if fds.len() == 2 {
            let (public, private) = (fds.remove(0), fds.remove(0));
            let descriptors = StoreDescriptors { public, private };
            timed("Store::attach", PATIENCE, report, || Store::attach(descriptors).is_err())
        } else {
            let fd = fds.remove(0);
            let result = match self.handed_over / 2 % 4 {
                0 => timed("Channel::attach", PATIENCE, report, || {
                    Channel::attach(fd, &options).map(drop)
                }),
                1 => timed("AnonymousSegment::inspect", PATIENCE, report, || {
                    AnonymousSegment::inspect(fd).map(drop)
                }),
                2 => timed("SlotChannel::attach", PATIENCE, report, || {
                    SlotChannel::<u64, u64>::attach(fd, &options).map(drop)
                }),
                _ => timed("Store::attach_read_only", PATIENCE, report, || {
                    Store::attach_read_only(fd)
                        .map(drop)
                        .map_err(|_| SegmentError::NotMemory { found: String::new() })
                }),
            };
            matches!(result, Err(SegmentError::NotMemory { .. }))
        };
        self.handed_over += 1;
        assert!(refused || !no_memory, "number {}", self.handed_over);
        if self.attack == Attack::HugePages {
            self.counters.add(Count::Hits, u64::from(no_memory));
        }
        let _ = socket.write(&[1]);
    }

    /// Reads what has come of the streams of each incarnation.
    fn read_streams(&mut self, report: Report<'_>) {
        self.pipes.extend(self.handle.take_stdout());
        self.pipes.extend(self.handle.take_stderr());
        let mut polled: Vec<_> = self
            .pipes
            .iter()
            .map(|pipe| libc::pollfd { fd: pipe.as_raw_fd(), events: libc::POLLIN, revents: 0 })
            .collect();
        let millis = PATIENCE.as_millis() as i32;
        // SAFETY: as many entries as it says, which outlive the call.
        unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, millis) };
        let mut index = 0;
        self.pipes.retain_mut(|pipe| {
            index += 1;
            if polled[index - 1].revents == 0 {
                return true;
            }
            let mut bytes = [0; 1000];
            let read =
                timed("PipeReader::read", PATIENCE, report, || pipe.read(&mut bytes).unwrap());
            read > 0
        });
    }

    /// Lets go of what the attacker can reach, before it is ended.
    pub fn close(&mut self) {
        self.socket = None;
        self.channels = None;
        self.ticks = None;
    }

    /// How many publications the attacker's subscriptions have cost nothing but their place.
    pub fn dropped(&mut self) -> u64 {
        self.ticks.as_mut().map_or(0, |ticks| ticks.subscribers().map(|info| info.dropped).sum())
    }

    /// Ends the process that the attacker may have left behind, which is a child of this one if this is a subreaper.
    pub fn end_orphan(&self) {
        let orphan = self.counters.get(Count::Orphan) as i32;
        if orphan != 0 {
            // SAFETY: a child of this process that has not been reaped.
            unsafe { libc::kill(orphan, libc::SIGKILL) };
            // SAFETY: as above; no status is wanted.
            unsafe { libc::waitpid(orphan, std::ptr::null_mut(), 0) };
        }
    }
}

fn is_of_huge_pages(fd: &OwnedFd) -> bool {
    // SAFETY: zeros are valid, and overwritten.
    let mut found: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: an open descriptor, and a structure that outlives the call.
    let result = unsafe { libc::fstatfs(fd.as_raw_fd(), &raw mut found) };
    result == 0 && found.f_type == libc::HUGETLBFS_MAGIC
}

/// Reports how long a call took.
pub fn timed<T>(
    what: &'static str,
    deadline: Duration,
    report: Report<'_>,
    call: impl FnOnce() -> T,
) -> T {
    let begun = Instant::now();
    let result = call();
    report(what, deadline, begun.elapsed());
    result
}
