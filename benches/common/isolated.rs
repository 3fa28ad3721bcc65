//! A measurement in a process of its own, so that whatever happens there ends that measurement only.
//!
//! [`case`](super::case) calls it for the rows that say so: code that may fail, hang, or leave
//! things behind.
//! What always holds: when [`measure`] returns, both ends are gone, and so is what they left in
//! `/dev/shm` under [`near_name`] and in their private directory for temporary files.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::process::parent_id;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use super::case::Setting;
use super::cli::ChildArgs;
use super::link::Outcome;
use super::process::{GAVE_UP, Peer, adopt_orphans, reap_orphans};
use super::stats::Latencies;

/// Seconds after which an isolated measurement is taken to hang.
pub const HANGS_AFTER_S: u32 = 10;
/// How much longer its process may live.
const GRACE: Duration = Duration::from_secs(2);

/// Where named shared memory lies.
const SHM: &str = "/dev/shm";
const PREFIX: &str = "ringway-peers-";

fn name_of(near: u32) -> String {
    // The dash ends the number: no other name begins with this one.
    format!("{PREFIX}{near}-")
}

/// In the near end: what names in `/dev/shm` begin with.
pub fn near_name() -> String {
    name_of(std::process::id())
}

/// In the far end: the same name.
pub fn far_name() -> String {
    name_of(parent_id())
}

/// Measures once, or says why that failed. Latencies of single round trips are not handed over.
pub fn measure(case: &str, setting: &Setting) -> Result<Outcome, String> {
    adopt_orphans();
    let (mut said, mut report) = (scratch_file(), scratch_file());
    let own = std::env::temp_dir().join(name_of(std::process::id()));
    fs::create_dir_all(&own).expect("a directory for temporary files");
    let args = ChildArgs {
        case: case.into(),
        spec: setting.spec,
        job: setting.job,
        cpu: setting.far_cpu,
        near: Some(setting.time),
        parent: 0,
        fds: Vec::new(),
    };
    let mut near = Peer::spawn_with(args, &[report.as_fd()], |command| {
        command.env("TMPDIR", &own);
        command.stdout(said.try_clone().expect("a second descriptor"));
        command.stderr(said.try_clone().expect("a second descriptor"));
    });
    let (id, limit) = (near.id(), Duration::from_secs(HANGS_AFTER_S.into()) + GRACE);
    let status = near.wait_at_most(limit);
    // Kills it where it still runs, and with it the far end, whose parent it is.
    drop(near);
    reap_orphans();
    sweep(Path::new(SHM), |process| process == id);
    fs::remove_dir_all(&own).expect("removing temporary files");
    match status {
        Some(status) if status.success() => parse(&contents(&mut report)),
        _ => Err(reason(&contents(&mut said), status)),
    }
}

/// In the near end: hands the outcome to [`measure`].
pub fn report(outcome: &Outcome, to: OwnedFd) {
    let line = match outcome {
        Outcome::RoundTrip { ns, .. } => format!("round-trip {ns}"),
        Outcome::OneWay { per_second } => format!("one-way {per_second}"),
    };
    File::from(to).write_all(line.as_bytes()).expect("room for a line");
}

fn parse(line: &str) -> Result<Outcome, String> {
    let (job, figure) = line.split_once(' ').ok_or("it reported nothing")?;
    let figure = figure.parse().map_err(|_| "it reported no figure")?;
    match job {
        "round-trip" => Ok(Outcome::RoundTrip { ns: figure, each: Latencies::new() }),
        _ => Ok(Outcome::OneWay { per_second: figure }),
    }
}

/// The one line of what it said that tells most: of the first panic, else the last.
fn reason(said: &str, status: Option<ExitStatus>) -> String {
    let mut lines = said.lines().filter(|line| !line.trim().is_empty());
    let panicked = lines.by_ref().find(|line| line.contains("panicked at"));
    let line = match (panicked, status.map(|status| (status, status.code()))) {
        (Some(_), _) => lines.next(),
        (None, None | Some((_, Some(GAVE_UP)))) => {
            return format!("did not end in {HANGS_AFTER_S} s");
        }
        (None, Some((killed, None))) => return format!("ended by {killed}"),
        (None, Some(_)) => said.lines().rfind(|line| !line.trim().is_empty()),
    };
    let line: String = line.unwrap_or("it said nothing").trim().chars().take(160).collect();
    line.replace('|', "/")
}

/// Removes what processes that are gone have left: of a bench that was killed, say.
pub fn sweep_dead() {
    for directory in [Path::new(SHM), &std::env::temp_dir()] {
        // One that nobody has reaped has no program any more.
        let program = |process| fs::read_link(format!("/proc/{process}/exe"));
        let gone = |process| program(process).is_err_and(|e| e.kind() == ErrorKind::NotFound);
        sweep(directory, gone);
    }
}

/// Removes what begins with [`name_of`] a process in this directory, where `chosen` says so.
fn sweep(directory: &Path, chosen: impl Fn(u32) -> bool) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let named = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split_once('-'));
        if named.and_then(|(process, _)| process.parse().ok()).is_some_and(&chosen) {
            // One of them fits; somebody else removing it first is as well.
            let _ = fs::remove_file(entry.path()).or_else(|_| fs::remove_dir_all(entry.path()));
        }
    }
}

fn scratch_file() -> File {
    // SAFETY: the name is a C string; the call has no other preconditions.
    let fd = unsafe { libc::memfd_create(c"ringway-bench".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(fd >= 0, "memfd_create: {}", std::io::Error::last_os_error());
    // SAFETY: the kernel has just returned this descriptor, and nobody else knows it.
    unsafe { File::from_raw_fd(fd) }
}

fn contents(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.rewind().expect("a file in memory");
    file.read_to_end(&mut bytes).expect("a file in memory");
    String::from_utf8_lossy(&bytes).into_owned()
}
