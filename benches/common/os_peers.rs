//! What the system offers between processes: a pipe, and Unix sockets. Both sides block.
//!
//! Rows of both benches.
//! What always holds: messages are of a size that both sides know, so that nothing is framed.

use std::fs::File;
use std::io::{Read, Write};
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::case::Transport;
use super::link::{Bytes, Copied, Spec};

/// Reads whole messages from one descriptor and writes them to another.
#[derive(Debug)]
pub struct Descriptors {
    inbox: File,
    out: File,
}

impl Bytes for Descriptors {
    fn write(&mut self, message: &[u8]) {
        self.out.write_all(message).expect("the other side reads");
    }

    fn read(&mut self, buffer: &mut [u8]) {
        self.inbox.read_exact(buffer).expect("the other side writes");
    }
}

/// Two descriptors that a system call has just made.
fn fresh(fds: [RawFd; 2]) -> [OwnedFd; 2] {
    fds.map(|fd| {
        // SAFETY: both callers pass what the kernel has just returned; nobody else knows it.
        unsafe { OwnedFd::from_raw_fd(fd) }
    })
}

/// Two Unix pipes, with buffers as large as the capacity where the system allows it.
#[derive(Debug)]
pub struct Pipe;

impl Pipe {
    fn open(capacity: usize) -> [OwnedFd; 2] {
        let mut fds = [0; 2];
        // SAFETY: the array has room for two descriptors.
        let result = unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) };
        assert_eq!(result, 0, "pipe2 failed");
        let [reader, writer] = fresh(fds);
        // 1 MiB is what an unprivileged user gets; a refusal leaves the default of 64 KiB.
        let wanted = capacity.min(1 << 20) as libc::c_int;
        // SAFETY: takes no pointers.
        unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETPIPE_SZ, wanted) };
        [reader, writer]
    }
}

impl Transport for Pipe {
    type End = Copied<Descriptors>;

    fn create(spec: &Spec) -> (Self::End, Vec<OwnedFd>) {
        let [far_in, out] = Self::open(spec.capacity);
        let [inbox, far_out] = Self::open(spec.capacity);
        let near = Descriptors { inbox: inbox.into(), out: out.into() };
        (Copied::new(near, spec), vec![far_in, far_out])
    }

    fn attach(spec: &Spec, fds: Vec<OwnedFd>) -> Self::End {
        let [inbox, out]: [OwnedFd; 2] = fds.try_into().expect("two descriptors");
        Copied::new(Descriptors { inbox: inbox.into(), out: out.into() }, spec)
    }
}

/// A pair of Unix sockets of the given kind, with send buffers as large as the capacity.
#[derive(Debug)]
pub struct Socket<const KIND: libc::c_int>;

/// A byte stream.
pub type StreamSocket = Socket<{ libc::SOCK_STREAM }>;
/// Whole messages.
pub type PacketSocket = Socket<{ libc::SOCK_SEQPACKET }>;

fn both_ways(socket: OwnedFd) -> Descriptors {
    let out = socket.try_clone().expect("a second descriptor");
    Descriptors { inbox: socket.into(), out: out.into() }
}

impl<const KIND: libc::c_int> Transport for Socket<KIND> {
    type End = Copied<Descriptors>;

    fn create(spec: &Spec) -> (Self::End, Vec<OwnedFd>) {
        let mut fds = [0; 2];
        let kind = KIND | libc::SOCK_CLOEXEC;
        // SAFETY: the array has room for two descriptors.
        let result = unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) };
        assert_eq!(result, 0, "socketpair failed");
        let [near, far] = fresh(fds);
        for socket in [&near, &far] {
            let wanted = spec.capacity as libc::c_int;
            // SAFETY: the kernel reads one integer of the given size; it caps what is too much.
            unsafe {
                libc::setsockopt(
                    socket.as_raw_fd(),
                    libc::SOL_SOCKET,
                    libc::SO_SNDBUF,
                    (&raw const wanted).cast(),
                    mem::size_of_val(&wanted) as libc::socklen_t,
                )
            };
        }
        (Copied::new(both_ways(near), spec), vec![far])
    }

    fn attach(spec: &Spec, mut fds: Vec<OwnedFd>) -> Self::End {
        Copied::new(both_ways(fds.remove(0)), spec)
    }
}
