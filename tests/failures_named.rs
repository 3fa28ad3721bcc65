//! Rows of the table of failures that concern named segments: creators and peers that die at any
//! step, races, forks, strangers' files, lack of room.
#![allow(unsafe_code, missing_docs)]

mod common;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use common::name::Name;
use common::steps::kill_at_every_step;
use common::victim::Victim;
use ringway::channel::{self, Channel, ChannelOptions, PeerState, Side};
use ringway::error::{
    NameError, RecvError, RecvTimeoutError, SegmentError, SendError, TryRecvError,
};
use ringway::layout::{claim, segment, side};
use ringway::segment::{Access, Address};

/// Longer than anything takes; reached only by a test that has failed.
const NEVER: Duration = Duration::from_secs(60);

fn options() -> ChannelOptions {
    ChannelOptions { capacity_bytes: 4096, ..ChannelOptions::default() }
}

fn on(side: Side) -> ChannelOptions {
    ChannelOptions { side: Some(side), ..options() }
}

fn name_error<T: std::fmt::Debug>(result: Result<T, SegmentError>) -> NameError {
    match result {
        Err(SegmentError::Name(error)) => error,
        other => panic!("{other:?}"),
    }
}

/// A pipe, to wait for what another process has done.
struct Signal([i32; 2]);

impl Signal {
    fn new() -> Self {
        let mut ends = [0; 2];
        // SAFETY: the array outlives the call.
        assert_eq!(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) }, 0);
        Self(ends)
    }

    fn give(&self) {
        // SAFETY: an open descriptor and a byte that outlives the call.
        assert_eq!(unsafe { libc::write(self.0[1], [1_u8].as_ptr().cast(), 1) }, 1);
    }

    fn wait(&self) {
        let mut poll = libc::pollfd { fd: self.0[0], events: libc::POLLIN, revents: 0 };
        // SAFETY: a structure that outlives the call.
        let ready = unsafe { libc::poll(&mut poll, 1, NEVER.as_millis() as i32) };
        assert_eq!(ready, 1, "the other process has failed");
        let mut byte = 0_u8;
        // SAFETY: an open descriptor and a byte that outlives the call.
        assert_eq!(unsafe { libc::read(self.0[0], (&raw mut byte).cast(), 1) }, 1);
    }
}

impl Drop for Signal {
    fn drop(&mut self) {
        for end in self.0 {
            // SAFETY: this process's own descriptor.
            unsafe { libc::close(end) };
        }
    }
}

fn hang() -> ! {
    loop {
        std::thread::park();
    }
}

/// A process that has done this and holds on to what it returned.
fn process<T>(run: impl FnOnce() -> T) -> Victim {
    let ready = Signal::new();
    let victim = Victim::start(|| {
        let _kept = run();
        ready.give();
        hang();
    });
    ready.wait();
    victim
}

fn open_file(name: &Name) -> File {
    File::options().read(true).write(true).open(name.path()).unwrap()
}

fn gc(name: &Name) {
    channel::gc_where(|found| found == name.text()).unwrap();
}

#[test]
fn f07_a_creator_that_is_killed_at_any_step_leaves_nothing_or_a_whole_segment() {
    let name = Name::new("f07");
    let mut whole = 0;
    let deaths = kill_at_every_step(
        || drop(Channel::create(&name, &options()).unwrap()),
        |step| {
            match Channel::open(&name, &options()) {
                Ok(mut second) => {
                    whole += 1;
                    assert_ne!(second.peer_state(), PeerState::Attached, "step {step}");
                    assert_eq!(second.recv().unwrap_err(), RecvError::Disconnected);
                }
                Err(SegmentError::Name(NameError::NotFound { .. })) => {}
                Err(error) => panic!("step {step}: {error}"),
            }
            // The name can be used at once.
            let first = Channel::create(&name, &options());
            drop(first.unwrap_or_else(|error| panic!("step {step}: {error}")));
            gc(&name);
            assert_eq!(name.temporaries(), Vec::<std::path::PathBuf>::new(), "step {step}");
            assert!(!name.path().exists(), "step {step}");
        },
    );
    assert!(deaths > 30 && whole > 0 && whole < deaths, "{deaths} deaths, {whole} whole");
    println!("{deaths} deaths, {whole} of them behind the link");
}

#[test]
fn f08_a_peer_that_is_killed_at_any_step_of_attaching_is_seen_as_gone() {
    let name = Name::new("f08");
    let mut first = Channel::create(&name, &options()).unwrap();
    first.send(b"unread").unwrap();
    let deaths = kill_at_every_step(
        || drop(Channel::open(&name, &options()).unwrap()),
        |step| {
            // Whatever it got to: nobody waits for it, and another one can attach.
            let waited = first.recv_timeout(Duration::ZERO).map(|message| message.to_vec());
            assert!(
                matches!(
                    waited,
                    Err(RecvTimeoutError::Timeout
                        | RecvTimeoutError::Disconnected
                        | RecvTimeoutError::Restarted { .. })
                ),
                "step {step}: {waited:?}"
            );
            assert_ne!(state_soon(&first), PeerState::Attached, "step {step}");
        },
    );
    let mut second = Channel::open(&name, &options()).unwrap();
    assert_eq!(&*second.recv().unwrap(), b"unread");
    assert!(deaths > 20, "{deaths}");
}

/// The peer's state, once what is told later has been told.
fn state_soon(channel: &Channel) -> PeerState {
    for _ in 0..2000 {
        if channel.peer_state() != PeerState::Attached {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    channel.peer_state()
}

#[test]
fn f09_a_segment_whose_processes_have_died_is_replaced_at_any_step() {
    let name = Name::new("f09");
    let make_dead = || {
        let name = &name;
        drop(process(|| {
            let mut first = Channel::create(name, &options()).unwrap();
            first.send(b"old").unwrap();
            first
        }));
    };
    make_dead();
    let old = fs::metadata(name.path()).unwrap().ino();
    let mut replaced = 0;
    let deaths = kill_at_every_step(
        || drop(Channel::create(&name, &options()).unwrap()),
        |step| {
            // There is always one, and it is whole.
            let now = fs::metadata(name.path()).unwrap().ino();
            replaced += usize::from(now != old);
            let listed = channel::list().unwrap().into_iter();
            let found = listed.into_iter().find(|listed| listed.name == name.text()).unwrap();
            assert_eq!(found.unread.unwrap().to_second, u64::from(now == old), "step {step}");
            drop(Channel::open(&name, &options()).unwrap());
        },
    );
    assert!(deaths > 30 && replaced > 0 && replaced < deaths, "{deaths}, {replaced}");
}

#[test]
fn f10_of_many_that_race_one_creates_and_everybody_else_is_told() {
    const RACERS: usize = 64;
    for round in 0..12 {
        let name = Name::new("f10");
        // A dead one to take over, every other time.
        if round % 2 == 1 {
            drop(process(|| Channel::create(&name, &options()).unwrap()));
        }
        let (go, outcomes) = (Signal::new(), Signal::new());
        let racers: Vec<_> = (0..RACERS)
            .map(|number| {
                let (name, go, outcomes) = (&name, &go, &outcomes);
                Victim::start(move || {
                    go.wait();
                    let creates = number % 2 == 0;
                    let got = if creates {
                        Channel::create(name, &options())
                    } else {
                        Channel::open_or_create(name, &options())
                    };
                    let outcome = match &got {
                        Ok(_) => b'+',
                        Err(SegmentError::Name(
                            NameError::AlreadyExists { .. }
                            | NameError::AlreadyClaimed { .. }
                            | NameError::Busy { .. },
                        )) => b'-',
                        Err(_) => b'!',
                    };
                    // SAFETY: an open descriptor and a byte that outlives the call.
                    unsafe { libc::write(outcomes.0[1], [outcome].as_ptr().cast(), 1) };
                    let _kept = got;
                    hang();
                })
            })
            .collect();
        (0..RACERS).for_each(|_| go.give());
        let mut found = [0_u8; RACERS];
        for at in 0..RACERS {
            // SAFETY: an open descriptor and a byte of the array.
            let read = unsafe { libc::read(outcomes.0[0], found[at..].as_mut_ptr().cast(), 1) };
            assert_eq!(read, 1);
        }
        let count = |outcome: u8| found.iter().filter(|&&found| found == outcome).count();
        assert_eq!((count(b'+'), count(b'!')), (2, 0), "one for each side, round {round}");
        let listed = channel::list().unwrap().into_iter();
        let found = listed.into_iter().find(|listed| listed.name == name.text()).unwrap();
        assert!(!found.sides.contains(&channel::Holder::Nobody));
        drop(racers);
        assert_eq!(name.temporaries(), Vec::<std::path::PathBuf>::new());
    }
}

#[test]
fn f11_any_one_flipped_bit_of_the_header_is_refused() {
    let name = Name::new("f11");
    drop(Channel::create(&name, &options()).unwrap());
    let file = open_file(&name);
    for offset in 0..segment::HEADER_BYTES {
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).unwrap();
        for bit in 0..8 {
            file.write_all_at(&[byte[0] ^ 1 << bit], offset).unwrap();
            for open in [Channel::open, Channel::open_or_create] {
                let refused = open(&name, &options());
                assert!(
                    matches!(refused, Err(SegmentError::Incompatible { .. })),
                    "bit {bit} of byte {offset}: {refused:?}"
                );
            }
        }
        file.write_all_at(&byte, offset).unwrap();
    }
    drop(Channel::open(&name, &options()).unwrap());
    // And what has been told to be something else by its creator.
    let wider = ChannelOptions { capacity_bytes: 8192, ..options() };
    drop(Channel::create(&name, &wider).unwrap());
    drop(Channel::open(&name, &options()).unwrap());
}

#[test]
fn f12_a_number_that_was_given_away_is_not_taken_for_the_peer() {
    let name = Name::new("f12");
    let victim = process(|| Channel::create(&name, &options()).unwrap());
    drop(victim);
    // As if the process that runs the tests had got its number: it lives, and started earlier.
    let (line, other) = (side::LINE[0], std::os::unix::process::parent_id());
    open_file(&name).write_all_at(&other.to_ne_bytes(), line + side::PID).unwrap();
    let mut second = Channel::open(&name, &options()).unwrap();
    assert!(matches!(second.peer_state(), PeerState::Died(_)));
    assert_eq!(second.recv().unwrap_err(), RecvError::Disconnected);
    drop(second);
    // With somebody's lock in the way, whose number it is decides; that one would not die.
    let reader = process(|| {
        let file = File::open(name.path()).unwrap();
        lock(&file, libc::F_RDLCK, claim::SIDE[0], 1);
        file
    });
    let mut second = Channel::open(&name, &options()).unwrap();
    drop(reader);
    assert_eq!(second.recv_timeout(NEVER).unwrap_err(), RecvTimeoutError::Disconnected);
}

#[test]
fn f13_a_peer_in_another_pid_namespace_is_watched_by_its_lock() {
    let name = Name::new("f13");
    let mut first = Channel::create(&name, &options()).unwrap();
    let ready = Signal::new();
    // The first child of a process that has left its namespace is in the new one.
    let mut outer = Victim::start(|| {
        // SAFETY: the call takes a number.
        if unsafe { libc::unshare(libc::CLONE_NEWPID) } != 0 {
            ready.give();
            hang();
        }
        let _inner = Victim::start(|| {
            // Its own number there is 1, which is somebody else's here.
            assert_eq!(std::process::id(), 1);
            let _kept = Channel::open(&name, &options()).unwrap();
            ready.give();
            hang();
        });
        hang();
    });
    ready.wait();
    if first.peer_state() == PeerState::Absent {
        println!("skipped: no pid namespaces here");
        return;
    }
    assert_eq!(first.peer_state(), PeerState::Attached);
    assert_eq!(
        first.recv_timeout(Duration::from_millis(200)).unwrap_err(),
        RecvTimeoutError::Timeout,
        "it lives"
    );
    outer.kill();
    // Its namespace goes with it.
    assert_eq!(first.recv_timeout(NEVER).unwrap_err(), RecvTimeoutError::Disconnected);
    outer.wait();
}

#[test]
fn f14_a_file_that_was_cut_is_refused_before_it_is_mapped() {
    let name = Name::new("f14");
    drop(Channel::create(&name, &options()).unwrap());
    let file = open_file(&name);
    let len_bytes = file.metadata().unwrap().len();
    for len in [4096, len_bytes - 4096, len_bytes - 1] {
        file.set_len(len).unwrap();
        let refused = Channel::open(&name, &options());
        assert!(matches!(refused, Err(SegmentError::TooSmall { .. })), "{len}: {refused:?}");
    }
    for (len, what) in [(100, "shorter than a header"), (0, "an empty file")] {
        file.set_len(len).unwrap();
        let refused = name_error(Channel::open(&name, &options())).to_string();
        assert!(refused.contains(what), "{refused}");
    }
    file.set_len(len_bytes).unwrap();
    let refused = name_error(Channel::open(&name, &options()));
    assert!(matches!(refused, NameError::Stale { .. }), "{refused}");
    // Nobody has it, so it can be created again.
    drop(Channel::create(&name, &options()).unwrap());
}

#[test]
fn f27_a_stopped_peer_is_alive_and_one_that_is_stopped_in_the_gate_costs_a_deadline() {
    let name = Name::new("f27");
    let mut first = Channel::create(&name, &options()).unwrap();
    let mut victim = process(|| Channel::open(&name, &options()).unwrap());
    victim.stop();
    assert_eq!(first.peer_state(), PeerState::Attached);
    first.send(b"for later").unwrap();
    assert_eq!(
        first.recv_timeout(Duration::from_millis(20)).unwrap_err(),
        RecvTimeoutError::Timeout
    );
    let refused = name_error(Channel::open(&name, &options()));
    assert!(matches!(refused, NameError::AlreadyClaimed { side: 1, .. }), "{refused}");
    drop(victim);
    let mut holder = process(|| {
        let file = open_file(&name);
        lock(&file, libc::F_WRLCK, claim::GATE, 1);
        file
    });
    holder.stop();
    let refused = name_error(Channel::open(&name, &options()));
    assert!(matches!(refused, NameError::Busy { .. }), "{refused}");
    drop(holder);
    drop(Channel::open(&name, &options()).unwrap());
}

fn lock(file: &File, kind: i32, start: u64, len: u64) {
    use std::os::fd::AsRawFd;
    // SAFETY: a lock of zeros is one of no bytes.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    (lock.l_type, lock.l_start, lock.l_len) = (kind as i16, start as i64, len as i64);
    // SAFETY: an open descriptor, and a structure that outlives the call.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &lock) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn f30_a_forked_child_neither_uses_nor_keeps_its_parents_claim() {
    let name = Name::new("f30");
    let mut second = {
        let forked = Signal::new();
        let parent = process(|| {
            let mut first = Channel::create(&name, &options()).unwrap();
            first.send(b"from the parent").unwrap();
            // SAFETY: the child calls nothing that another thread could have locked.
            let child = unsafe { libc::fork() };
            if child == 0 {
                // SAFETY: it ends with whoever started its parent, or after a minute.
                unsafe { libc::alarm(60) };
                let refused = first.send(b"from the child") == Err(SendError::Forked)
                    && matches!(first.try_recv(), Err(TryRecvError::Forked));
                // It may attach like anybody else, and finds its parent there.
                let taken = Channel::open(&name, &on(Side::First));
                let taken = matches!(
                    taken,
                    Err(SegmentError::Name(NameError::AlreadyClaimed { side: 0, .. }))
                );
                if refused && taken {
                    forked.give();
                }
                hang();
            }
            first
        });
        forked.wait();
        let second = Channel::open(&name, &options()).unwrap();
        assert_eq!(second.peer_state(), PeerState::Attached);
        drop(parent);
        second
    };
    // The child lives, has everything mapped, and yet:
    assert_eq!(&*second.recv().unwrap(), b"from the parent");
    assert_eq!(second.recv().unwrap_err(), RecvError::Disconnected);
    let mut next = Channel::open(&name, &on(Side::First)).unwrap();
    next.send(b"from the successor").unwrap();
    assert!(matches!(second.recv(), Err(RecvError::Restarted { .. })));
    assert_eq!(&*second.recv().unwrap(), b"from the successor");
}

#[test]
fn f31_modes_do_not_depend_on_the_umask_and_owners_are_checked() {
    let name = Name::new("f31");
    let mode = |name: &Name| fs::metadata(name.path()).unwrap().permissions().mode() & 0o777;
    let status = Victim::start(|| {
        // SAFETY: the call takes a number; this process is a copy.
        unsafe { libc::umask(0o777) };
        drop(Channel::create(&name, &options()).unwrap());
    })
    .wait();
    assert_eq!((status, mode(&name)), (0, 0o600));
    let shared = Access { mode: 0o660, owner: None };
    let for_group = ChannelOptions { access: shared, ..options() };
    drop(Channel::create(&name, &for_group).unwrap());
    assert_eq!(mode(&name), 0o660);
    let refused = name_error(Channel::open(&name, &options())).to_string();
    assert!(refused.contains("mode 0o660, expected no more than 0o600"), "{refused}");
    drop(Channel::open(&name, &for_group).unwrap());
    let somebody = Access { mode: 0o660, owner: Some(12345) };
    let refused =
        name_error(Channel::open(&name, &ChannelOptions { access: somebody, ..options() }));
    assert!(refused.to_string().contains("expected user 12345"), "{refused}");
}

#[test]
fn f32_a_name_that_somebody_squats_is_refused() {
    let name = Name::new("f32");
    let target = Name::new("f32-target");
    drop(Channel::create(&target, &options()).unwrap());
    std::os::unix::fs::symlink(target.path(), name.path()).unwrap();
    for open in [Channel::open, Channel::open_or_create, Channel::create] {
        let refused = name_error(open(&name, &options())).to_string();
        assert!(refused.contains("a symbolic link, expected a regular file"), "{refused}");
    }
    assert!(fs::symlink_metadata(name.path()).unwrap().is_symlink(), "left alone");
    fs::remove_file(name.path()).unwrap();
    fs::create_dir(name.path()).unwrap();
    let refused = name_error(Channel::open(&name, &options()));
    fs::remove_dir(name.path()).unwrap();
    assert!(matches!(refused, NameError::NotOurs { .. }), "{refused}");
    // A file that is none of ours is not replaced either, where a path was given.
    let path = std::env::temp_dir().join(format!("ringway-f32-{}", std::process::id()));
    fs::write(&path, b"somebody's notes, which are longer than a header would be".repeat(10))
        .unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let created = Channel::create(&*path, &options());
    let removed = channel::remove(&*path);
    let kept = fs::read(&path).unwrap().len();
    fs::remove_file(&path).unwrap();
    assert!(matches!(created, Err(SegmentError::Incompatible { field: "magic", .. })));
    assert!(matches!(removed, Err(SegmentError::Incompatible { field: "magic", .. })));
    assert_eq!(kept, 570);
}

#[test]
fn f33_a_lack_of_room_is_an_error_and_nothing_is_kept() {
    let name = Name::new("f33");
    let mut limited = Victim::start(|| {
        let limit = libc::rlimit { rlim_cur: 8192, rlim_max: 8192 };
        // SAFETY: the signal that goes with this limit is ignored from here on.
        unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
        // SAFETY: the limit outlives the call.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &limit) }, 0);
        let refused = Channel::create(&name, &options());
        assert!(matches!(refused, Err(SegmentError::NoSpace { .. })), "{refused:?}");
    });
    assert_eq!(limited.wait(), 0);
    assert!(!name.path().exists() && name.temporaries().is_empty());
    // On a file system of its own that is full.
    let directory = std::env::temp_dir().join(format!("ringway-f33-{}", std::process::id()));
    fs::create_dir(&directory).unwrap();
    let mut full = Victim::start(|| full_file_system(&directory));
    let status = full.wait();
    fs::remove_dir(&directory).unwrap();
    assert_eq!(status, 0);
}

/// In a mount namespace of its own.
fn full_file_system(directory: &Path) {
    let path = std::ffi::CString::new(directory.to_str().unwrap()).unwrap();
    let (kind, options_text) = (c"tmpfs", c"size=12k");
    // SAFETY: the call takes a number.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        println!("skipped: no mount namespaces here");
        return;
    }
    let private = libc::MS_REC | libc::MS_PRIVATE;
    let none = std::ptr::null();
    // SAFETY: strings that outlive the call; the others may be null.
    unsafe { libc::mount(none, c"/".as_ptr(), none, private, none.cast()) };
    // SAFETY: as above.
    let mounted = unsafe {
        libc::mount(kind.as_ptr(), path.as_ptr(), kind.as_ptr(), 0, options_text.as_ptr().cast())
    };
    assert_eq!(mounted, 0, "{}", std::io::Error::last_os_error());
    let refused = Channel::create(directory.join("channel"), &options());
    assert!(matches!(refused, Err(SegmentError::NoSpace { .. })), "{refused:?}");
    assert_eq!(fs::read_dir(directory).unwrap().count(), 0);
}

#[test]
fn f38_a_file_that_was_in_use_when_the_machine_went_down_is_refused() {
    let path = std::env::temp_dir().join(format!("ringway-f38-{}", std::process::id()));
    let address = Address::from(&*path);
    drop(process(|| Channel::create(&address, &options()).unwrap()));
    drop(Channel::open(&address, &options()).unwrap());
    let file = File::options().write(true).open(&path).unwrap();
    let other_boot = 12345_u64.to_ne_bytes();
    file.write_all_at(&other_boot, side::LINE[0] + side::BOOT).unwrap();
    let refused = Channel::open(&address, &options());
    // One that was closed is as good as it was.
    let created = Channel::create(&address, &options());
    drop(created);
    file_of(&path).write_all_at(&other_boot, side::LINE[0] + side::BOOT).unwrap();
    let opened = Channel::open(&address, &options());
    fs::remove_file(&path).unwrap();
    assert!(matches!(name_error(refused), NameError::Unclean { .. }));
    opened.unwrap();
}

fn file_of(path: &Path) -> File {
    File::options().read(true).write(true).open(path).unwrap()
}

#[test]
fn f39_when_descriptors_run_out_nothing_is_half_done() {
    let name = Name::new("f39");
    let first = Channel::create(&name, &options()).unwrap();
    let mut limited = Victim::start(|| {
        // The number of descriptors that a process may have grows until all goes well.
        let limit = |descriptors| {
            let limit = libc::rlimit { rlim_cur: descriptors, rlim_max: 1024 };
            // SAFETY: the limit outlives the call.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
        };
        let mut refused = 0;
        for descriptors in 3..1024 {
            let other = Name::new("f39-new");
            limit(descriptors);
            let (opened, created) =
                (Channel::open(&name, &options()), Channel::create(&other, &options()));
            limit(1024);
            let nothing_kept = !other.path().exists() && other.temporaries().is_empty();
            assert!(created.is_ok() || nothing_kept, "{created:?}");
            match opened {
                Ok(_) => break,
                Err(SegmentError::Os { .. }) => refused += 1,
                Err(error) => panic!("{error}"),
            }
        }
        assert!(refused > 0);
    });
    assert_eq!(limited.wait(), 0);
    drop(first);
}

#[test]
fn f44_a_lock_that_outlives_its_holder_hides_no_death() {
    let name = Name::new("f44");
    let mut first = Channel::create(&name, &options()).unwrap();
    let (forked, end) = (Signal::new(), Signal::new());
    let victim = process(|| {
        let second = Channel::open(&name, &options()).unwrap();
        let flags = libc::c_long::from(libc::SIGCHLD);
        // SAFETY: like fork, without the library's handlers; the child makes system calls only.
        let child = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
        if child == 0 {
            let mut byte = 0_u8;
            // SAFETY: a descriptor of this copy of the process.
            unsafe { libc::close(end.0[1]) };
            forked.give();
            // SAFETY: an open descriptor and a byte that outlives the call; ends with the test.
            unsafe { libc::read(end.0[0], (&raw mut byte).cast(), 1) };
            // SAFETY: the call takes a number and does not return.
            unsafe { libc::_exit(0) };
        }
        second
    });
    forked.wait();
    assert_eq!(first.peer_state(), PeerState::Attached);
    drop(victim);
    assert_eq!(first.recv_timeout(NEVER).unwrap_err(), RecvTimeoutError::Disconnected);
    // The side is not free, though: that is the lock's to say.
    let refused = name_error(Channel::open(&name, &options()));
    assert!(matches!(refused, NameError::AlreadyClaimed { side: 1, .. }), "{refused}");
    drop(end);
    Channel::open_timeout(&name, &options(), NEVER).unwrap();
}
