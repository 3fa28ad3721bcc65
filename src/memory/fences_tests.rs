//! Unit tests of fences that are left out: between two processes.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::*;
use crate::memory::mapped::tests::{Side, store_and_look};
use crate::os::affinity;
use crate::os::mapping::Mapping;
use crate::os::memfd;

const LEN_BYTES: u64 = 8192;
/// Names the descriptor of the memory, in the process that is started.
const VARIABLE: &str = "RINGWAY_TEST_FENCES";
/// Reached only when the test has failed.
const NEVER: Duration = Duration::from_secs(60);

fn map(file: &File, side: usize, permitted: FenceMode) -> MappedMemory {
    let mapping = Arc::new(Mapping::read_write(file, LEN_BYTES).unwrap());
    let generation = fork::generation().unwrap();
    MappedMemory::from_mapping(mapping, permitted, generation).of_side(side, true)
}

/// This test once more, in a process of its own, with the memory.
fn start(file: &File, what: &str) -> Child {
    // SAFETY: makes a descriptor that the child inherits; `file` is open.
    let fd = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_DUPFD, 100) };
    assert!(fd >= 0);
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["memory::fences::tests::the_waking_process", "--exact", "--nocapture"])
        .env(VARIABLE, format!("{fd} {what}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // SAFETY: made above, and nobody else knows it.
    unsafe { libc::close(fd) };
    child
}

/// What `start` runs; nothing in the test run itself.
#[test]
fn the_waking_process() {
    let Ok(text) = std::env::var(VARIABLE) else { return };
    let (fd, what) = text.split_once(' ').unwrap();
    // SAFETY: `start` has made the descriptor for this process, which uses it here only.
    let file = unsafe { File::from_raw_fd(fd.parse().unwrap()) };
    let memory = map(&file, 0, FenceMode::Asymmetric);
    let (go, started) = std::sync::mpsc::channel();
    let mut lines = BufReader::new(std::io::stdin()).lines();
    let hot = {
        let memory = memory.clone();
        std::thread::spawn(move || {
            affinity::run_on(0).unwrap();
            // Sleeps: the processor idles, with this process's memory still loaded.
            started.recv().unwrap();
            memory.see_to_fences();
            store_and_look(&memory, Side::Waker, Memory::light_fence)
        })
    };
    affinity::run_on(1).unwrap();
    lines.next().unwrap().unwrap();
    memory.announce_fences();
    if what == "unflushed" {
        memory.adopt(memory.fences.shared.as_ref().unwrap(), side::RELIES_ON_GLOBAL);
    }
    println!("registered");
    lines.next().unwrap().unwrap();
    go.send(()).unwrap();
    let missed: Vec<_> = hot.join().unwrap().iter().map(u32::to_string).collect();
    println!("missed {}", missed.join(" "));
    std::io::stdout().flush().unwrap();
}

/// Rounds in which both sides missed the other's store; `None` where the waker still fences.
fn both_missed(flushes: bool) -> Option<usize> {
    let file = memfd::create(LEN_BYTES).unwrap();
    let memory = map(&file, 1, FenceMode::Asymmetric);
    let mut child = start(&file, if flushes { "flushed" } else { "unflushed" });
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut order = child.stdin.take().unwrap();
    order.write_all(b"register\n").unwrap();
    let mut until = |start: &str| loop {
        let line = said.next().unwrap().unwrap();
        // The harness may begin the line.
        if let Some((_, rest)) = line.split_once(start) {
            return rest.to_owned();
        }
    };
    until("registered");
    let mut fences = false;
    if flushes {
        memory.announce_fences();
        let begun = Instant::now();
        let word = side::LINE[1] + side::FLUSHED;
        while memory.load_u64(word, Ordering::Acquire) == 0 && begun.elapsed() < NEVER {
            std::thread::yield_now();
        }
        fences = memory.load_u64(word, Ordering::Acquire) == 0;
    }
    affinity::run_on(1).unwrap();
    order.write_all(b"go\n").unwrap();
    let fence = |memory: &MappedMemory| {
        full_fence();
        membarrier::global_barrier().unwrap();
        assert!(memory.barriers().may_miss() || memory.fences.shared.is_none());
    };
    // Without the assertion where this process has announced nothing, or the peer fences.
    let plain = |_: &MappedMemory| membarrier::global_barrier().unwrap();
    let fence: fn(&MappedMemory) = if flushes && !fences { fence } else { plain };
    let rare = store_and_look(&memory, Side::Sleeper, fence);
    let hot = until("missed");
    assert!(child.wait().unwrap().success());
    let missed = hot.split_whitespace().filter(|round| {
        let round = round.parse().unwrap();
        rare.binary_search(&round).is_ok()
    });
    let missed = missed.count();
    (!fences).then_some(missed)
}

/// The waking process registers while a processor idles with its memory loaded: the kernel then skips
/// this processor in global barriers. Without the flush both sides miss each other, where the kernel
/// shows it; with it never.
#[test]
fn f46_a_flush_makes_barriers_reach_an_idle_processor() {
    let cpus = CpuSet::online().ok().zip(CpuSet::of_process().ok());
    if !membarrier::is_supported() || cpus.is_none_or(|(on, own)| on.0[0] & own.0[0] & 3 != 3) {
        return println!("skipped: needs membarrier and the processors 0 and 1");
    }
    // A thread of its own, because it is pinned.
    let rounds = |flushes| std::thread::spawn(move || both_missed(flushes)).join().unwrap();
    match rounds(false) {
        Some(missed) if missed > 0 => println!("without a flush: {missed} rounds"),
        _ => println!("without a flush: this kernel, or this run, does not show the fault"),
    }
    match rounds(true) {
        Some(missed) => assert_eq!(missed, 0, "both missed the other's store"),
        None => println!("skipped: a processor refused the flush"),
    }
}

fn pair(permitted: FenceMode, is_private: bool) -> [MappedMemory; 2] {
    let file = memfd::create(LEN_BYTES).unwrap();
    [0, 1].map(|side| {
        let mapping = Arc::new(Mapping::read_write(&file, LEN_BYTES).unwrap());
        let generation = fork::generation().unwrap();
        MappedMemory::from_mapping(mapping, permitted, generation).of_side(side, is_private)
    })
}

/// Makes a side's line say that another process has it.
fn pretend(memory: &MappedMemory, of_side: usize, token: u64, cpu: u32) {
    let mut cpus = CpuSet::default();
    cpus.insert(cpu);
    memory.copy_in(side::CPUS[of_side], bytemuck::bytes_of(&cpus.0));
    memory.store_u64(side::LINE[of_side] + side::TOKEN, token, Ordering::Release);
}

#[test]
fn f46_fences_stay_until_the_peer_reports_its_flush() {
    if FenceMode::detect() != FenceMode::Asymmetric {
        return println!("skipped: fences are never left out here");
    }
    let [ours, theirs] = pair(FenceMode::Asymmetric, true);
    ours.announce_fences();
    pretend(&theirs, 1, 77, affinity::current_cpu().unwrap());
    ours.light_fence();
    assert_eq!(ours.fences.wakes.load(Ordering::Relaxed), side::FENCES);
    // A report for another process is none.
    let flushed = side::LINE[1] + side::FLUSHED;
    theirs.store_u64(flushed, 78, Ordering::Release);
    ours.light_fence();
    assert_eq!(ours.fences.wakes.load(Ordering::Relaxed), side::FENCES);
    let own = ours.load_u64(side::LINE[0] + side::TOKEN, Ordering::Relaxed);
    theirs.store_u64(flushed, own, Ordering::Release);
    ours.light_fence();
    assert_eq!(ours.fences.wakes.load(Ordering::Relaxed), side::RELIES_ON_GLOBAL);
    assert_eq!(theirs.load_u32(side::LINE[0] + side::WAKES, Ordering::Relaxed), 1);
    // The other direction is still without.
    assert_eq!(ours.current_fence_mode(), FenceMode::Real);
    assert!(ours.fence_is_certain());
    theirs.store_u32(side::LINE[1] + side::WAKES, side::RELIES_ON_GLOBAL, Ordering::Relaxed);
    assert_eq!(ours.current_fence_mode(), FenceMode::Asymmetric);
    assert!(!ours.fence_is_certain());
}

#[test]
fn f46_the_flush_is_reported_to_the_peer_that_asked() {
    if FenceMode::detect() != FenceMode::Asymmetric {
        return println!("skipped: fences are never left out here");
    }
    let [ours, theirs] = pair(FenceMode::Asymmetric, false);
    ours.announce_fences();
    pretend(&theirs, 1, 77, affinity::current_cpu().unwrap());
    ours.see_to_fences();
    let begun = Instant::now();
    while theirs.load_u64(side::LINE[0] + side::FLUSHED, Ordering::Acquire) != 77 {
        assert!(begun.elapsed() < NEVER, "no flush");
        std::thread::yield_now();
    }
    // A peer that shows ever new tokens is not obeyed for ever.
    for token in 100..200 {
        pretend(&theirs, 1, token, 0);
        ours.see_to_fences();
    }
    let flushes = ours.fences.shared.as_ref().unwrap().flushes.load(Ordering::Relaxed);
    assert!(flushes >= MAX_FLUSHES);
    assert!(theirs.load_u64(side::LINE[0] + side::FLUSHED, Ordering::Acquire) < 100 + 16);
}

#[test]
fn f46_a_channel_created_with_real_fences_visits_no_processor() {
    let [ours, theirs] = pair(FenceMode::Real, true);
    ours.announce_fences();
    theirs.announce_fences();
    assert_eq!(ours.load_u64(side::LINE[0] + side::TOKEN, Ordering::Relaxed), 0);
    pretend(&theirs, 1, 77, 0);
    ours.light_fence();
    assert!(ours.fence_is_certain());
    assert_eq!(ours.current_fence_mode(), FenceMode::Real);
    assert_eq!(ours.load_u64(side::LINE[0] + side::FLUSHED, Ordering::Relaxed), 0);
}
