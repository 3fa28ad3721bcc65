//! Descriptors over a socket, as host programs take them from plugins that they should not trust.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

/// Most descriptors of one message.
const MAX: usize = 2;

/// Room for a control message of `MAX` descriptors, aligned as one must be.
#[repr(align(8))]
struct Room([u8; 64]);

fn header(part: &mut libc::iovec, room: &mut Room, len: usize) -> libc::msghdr {
    // SAFETY: zeros are valid.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_iov = part;
    header.msg_iovlen = 1;
    header.msg_control = room.0.as_mut_ptr().cast();
    header.msg_controllen = len;
    header
}

/// Sends one byte and so many descriptors.
pub fn send(socket: &UnixStream, fds: &[RawFd]) -> io::Result<()> {
    assert!(fds.len() <= MAX);
    let mut byte = [fds.len() as u8];
    let mut part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    let mut room = Room([0; 64]);
    let bytes = size_of_val(fds) as u32;
    // SAFETY: the call takes a number.
    let space = unsafe { libc::CMSG_SPACE(bytes) };
    // SAFETY: as above.
    let len = unsafe { libc::CMSG_LEN(bytes) };
    let header = header(&mut part, &mut room, if fds.is_empty() { 0 } else { space as usize });
    if !fds.is_empty() {
        // SAFETY: the header has room for a control message.
        let control = unsafe { libc::CMSG_FIRSTHDR(&raw const header) };
        // SAFETY: in `room`, aligned, and nobody else's; zeros are valid.
        let control = unsafe { &mut *control };
        control.cmsg_level = libc::SOL_SOCKET;
        control.cmsg_type = libc::SCM_RIGHTS;
        control.cmsg_len = len as usize;
        // SAFETY: a control message of the header's.
        let data = unsafe { libc::CMSG_DATA(control) };
        // SAFETY: `CMSG_SPACE` has room for so many numbers; bytes may lie anywhere.
        unsafe { data.copy_from_nonoverlapping(fds.as_ptr().cast(), bytes as usize) };
    }
    // SAFETY: the header, and what it points to, outlive the call.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, libc::MSG_NOSIGNAL) };
    if sent == 1 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The descriptors of the next message, waiting for it until the socket's timeout; `None` where there is none.
pub fn receive(socket: &UnixStream) -> Option<Vec<OwnedFd>> {
    let mut byte = [0];
    let mut part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    let mut room = Room([0; 64]);
    let len = room.0.len();
    let mut header = header(&mut part, &mut room, len);
    let flags = libc::MSG_CMSG_CLOEXEC;
    // SAFETY: the header, and what it points to, outlive the call.
    let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, flags) };
    if received != 1 {
        return None;
    }
    // SAFETY: the kernel has filled the header.
    let control = unsafe { libc::CMSG_FIRSTHDR(&raw const header) };
    let mut fds = Vec::new();
    if control.is_null() {
        return Some(fds);
    }
    // SAFETY: not null, so a control message of the header's.
    let data = unsafe { libc::CMSG_DATA(control) };
    // SAFETY: as above.
    let bytes = unsafe { (*control).cmsg_len } as usize - (data.addr() - control.addr());
    for index in 0..bytes / size_of::<RawFd>() {
        // SAFETY: inside the control message.
        let place = unsafe { data.cast::<RawFd>().add(index) };
        // SAFETY: as above; it need not be aligned.
        let fd = unsafe { place.read_unaligned() };
        // SAFETY: just received, and nobody else's.
        fds.push(unsafe { OwnedFd::from_raw_fd(fd) });
    }
    Some(fds)
}
