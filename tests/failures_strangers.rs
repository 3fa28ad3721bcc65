//! Rows of the table of failures that concern strangers who share a named segment: stopped, forked,
//! squatting, without permission or room.
#![allow(unsafe_code, missing_docs)]

mod common;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use common::meeting::*;
use common::name::Name;
use common::room::{in_a_small_file_system, with_ever_more_descriptors};
use common::victim::Victim;
use ringway::channel::{self, Channel, ChannelOptions, PeerState, Side};
use ringway::error::{
    NameError, RecvError, RecvTimeoutError, SegmentError, SendError, TryRecvError,
};
use ringway::layout::{claim, side};
use ringway::segment::{Access, Address};

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
        assert!(matches!(refused, Err(SegmentError::FileLimit { .. })), "{refused:?}");
    });
    assert_eq!(limited.wait(), 0);
    assert!(!name.path().exists() && name.temporaries().is_empty());
    // On a file system of its own that is full.
    in_a_small_file_system("12k", |directory| {
        let refused = name_error(Channel::create(directory.join("channel"), &options()));
        assert!(matches!(refused, NameError::CannotCreate { .. }), "{refused:?}");
        assert_eq!(fs::read_dir(directory).unwrap().count(), 0);
    });
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
    let refused = with_ever_more_descriptors(|limit| {
        let other = Name::new("f39-new");
        limit.set();
        let (opened, created) =
            (Channel::open(&name, &options()), Channel::create(&other, &options()));
        limit.lift();
        let nothing_kept = !other.path().exists() && other.temporaries().is_empty();
        assert!(created.is_ok() || nothing_kept, "{created:?}");
        match opened {
            Ok(_) => true,
            Err(SegmentError::Os { .. }) => false,
            Err(error) => panic!("{error}"),
        }
    });
    assert!(refused > 0);
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
