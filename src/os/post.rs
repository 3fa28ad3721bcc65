//! Letters with a descriptor in them: pairs of sockets that keep messages apart.
//!
//! A host tells its plugins of their links with it. What always holds: letters go one way, and sending
//! one never waits, whatever the receiver does with its end; what is received is one whole letter with
//! at most one descriptor, which is closed on exec, or an error with nothing kept.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;

use super::rights;

/// A new pair of ends: what is sent on the first one is received on the second one. Nothing can be
/// sent the other way: descriptors that nobody asked for would be closed with the first end, and
/// closing some descriptors waits.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (first, second) = rights::pair()?;
    // Before anybody else has the other end.
    // SAFETY: the call takes numbers.
    let result = unsafe { libc::shutdown(first.as_raw_fd(), libc::SHUT_RD) };
    super::check(result.into())?;
    Ok((first, second))
}

/// Sends a letter, if there is room for it now.
///
/// # Errors
/// `WouldBlock` where there is no room; another where nobody can receive any more, or the system lacks
/// memory.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    letter: &[u8],
    descriptor: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    rights::send(socket, letter, descriptor.as_slice())
}

/// Receives a letter, if there is one: its length, 0 where none will come any more, and the descriptor
/// in it. That one is missing where this process cannot have more descriptors, or there were several.
///
/// # Errors
/// `WouldBlock` where there is none now; `InvalidData` where it is longer than `room`.
pub(crate) fn receive(
    socket: BorrowedFd<'_>,
    room: &mut [u8],
) -> io::Result<(usize, Option<OwnedFd>)> {
    let rights::Received { len, descriptors: [descriptor], complete } =
        rights::receive::<1>(socket, room)?;
    Ok((len, descriptor.filter(|_| complete)))
}

/// Ends the pair, whoever else has a copy of this end: the other end receives what was sent, then
/// nothing more.
pub(crate) fn end(socket: BorrowedFd<'_>) {
    // SAFETY: the call takes numbers.
    unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_RDWR) };
}

/// Waits until one of two descriptors is readable, or has ended.
pub(crate) fn wait_for_either(first: Option<BorrowedFd<'_>>, second: BorrowedFd<'_>) {
    let number = |fd: BorrowedFd<'_>| fd.as_raw_fd();
    // A negative number is passed over.
    let mut entries = [first.map_or(-1, number), number(second)].map(|fd| libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    });
    // SAFETY: as many entries as the call is told, which outlive it; a null timeout and mask are
    // allowed. A signal ends the wait, and the caller looks.
    unsafe {
        libc::ppoll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, ptr::null(), ptr::null())
    };
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{ErrorKind, Read, Seek, Write};
    use std::os::fd::AsFd;

    use super::*;
    use crate::os::epoll::is_readable;
    use crate::os::tests::child_says;

    #[test]
    fn a_letter_arrives_as_it_was_sent_with_the_file_that_was_in_it() {
        let (ours, theirs) = pair().unwrap();
        let text = crate::os::memfd::create(4096).unwrap();
        (&text).write_all(b"text").unwrap();
        send(ours.as_fd(), b"with", Some(text.as_fd())).unwrap();
        send(ours.as_fd(), b"without", None).unwrap();
        let mut room = [0; 16];
        let (len, descriptor) = receive(theirs.as_fd(), &mut room).unwrap();
        assert_eq!(&room[..len], b"with");
        let mut file = File::from(descriptor.unwrap());
        file.rewind().unwrap();
        let mut found = [0; 4];
        file.read_exact(&mut found).unwrap();
        assert_eq!(&found, b"text");
        // SAFETY: the call takes numbers.
        assert_eq!(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFD) }, libc::FD_CLOEXEC);
        let (len, descriptor) = receive(theirs.as_fd(), &mut room).unwrap();
        assert_eq!((&room[..len], descriptor.is_none()), (&b"without"[..], true));
        assert_eq!(receive(theirs.as_fd(), &mut room).unwrap_err().kind(), ErrorKind::WouldBlock);
    }

    #[test]
    fn who_does_not_read_is_not_waited_for() {
        let (ours, theirs) = pair().unwrap();
        // What the receiver says of its own end changes nothing.
        // SAFETY: the call takes numbers.
        unsafe { libc::fcntl(theirs.as_raw_fd(), libc::F_SETFL, 0) };
        let full = loop {
            if let Err(error) = send(ours.as_fd(), &[0; 200], None) {
                break error;
            }
        };
        assert_eq!(full.kind(), ErrorKind::WouldBlock);
    }

    #[test]
    fn nothing_can_be_sent_the_other_way() {
        let (ours, theirs) = pair().unwrap();
        let file = File::open("/dev/null").unwrap();
        let refused = send(theirs.as_fd(), b"take this", Some(file.as_fd())).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::BrokenPipe);
        send(ours.as_fd(), b"one way", None).unwrap();
        assert_eq!(receive(theirs.as_fd(), &mut [0; 16]).unwrap().0, 7);
        // Only the other end's end is to be waited for.
        assert!(!is_readable(theirs.as_fd()));
    }

    #[test]
    fn an_end_is_an_end_also_where_somebody_has_a_copy() {
        let (ours, theirs) = pair().unwrap();
        let _copy = ours.try_clone().unwrap();
        send(ours.as_fd(), b"last", None).unwrap();
        end(ours.as_fd());
        assert!(is_readable(theirs.as_fd()));
        let mut room = [0; 16];
        assert_eq!(receive(theirs.as_fd(), &mut room).unwrap().0, 4);
        assert_eq!(receive(theirs.as_fd(), &mut room).unwrap().0, 0);
    }

    #[test]
    fn a_letter_that_is_too_long_is_an_error_and_leaves_nothing() {
        let (ours, theirs) = pair().unwrap();
        let file = File::open("/dev/null").unwrap();
        send(ours.as_fd(), &[1; 17], Some(file.as_fd())).unwrap();
        let error = receive(theirs.as_fd(), &mut [0; 16]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
    }

    #[test]
    fn of_several_descriptors_none_is_kept() {
        let (ours, theirs) = pair().unwrap();
        let (mut end, other) = std::io::pipe().unwrap();
        rights::send(ours.as_fd(), b"both", &[other.as_fd(), other.as_fd()]).unwrap();
        drop(other);
        assert!(matches!(receive(theirs.as_fd(), &mut [0; 16]), Ok((4, None))));
        // Its end comes only where nobody has the other one any more.
        assert_eq!(end.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn a_descriptor_that_cannot_be_had_is_missing_and_the_letter_is_there() {
        let (ours, theirs) = pair().unwrap();
        let file = File::open("/dev/null").unwrap();
        send(ours.as_fd(), b"first", Some(file.as_fd())).unwrap();
        send(ours.as_fd(), b"second", Some(file.as_fd())).unwrap();
        let said = child_says(|| {
            let none = libc::rlimit { rlim_cur: 0, rlim_max: 1 << 10 };
            // SAFETY: the call reads the structure, which outlives it.
            unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const none) };
            let received = receive(theirs.as_fd(), &mut [0; 16]);
            matches!(received, Ok((5, None)))
        });
        assert!(said);
        let (len, descriptor) = receive(theirs.as_fd(), &mut [0; 16]).unwrap();
        assert_eq!((len, descriptor.is_some()), (6, true));
    }
}
