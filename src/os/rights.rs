//! Messages with descriptors in them, over a socket that keeps messages apart.
//!
//! `os::post` and `os::keeper` call it. Invariants: sending and receiving never wait; a received
//! descriptor is closed on exec, and belongs to exactly one [`OwnedFd`] from the moment it is received.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// The most descriptors in one message.
pub(super) const MAX_DESCRIPTORS: usize = 32;

/// Room for the descriptors' control message, aligned as its header must be.
#[repr(C, align(8))]
struct Control([u8; space(MAX_DESCRIPTORS)]);

/// Length of a control message with so many descriptors, padded.
const fn space(descriptors: usize) -> usize {
    // SAFETY: a calculation with a number.
    unsafe { libc::CMSG_SPACE((descriptors * size_of::<RawFd>()) as u32) as usize }
}

/// Length of a control message with so many descriptors, not padded.
fn len_with(descriptors: usize) -> usize {
    // SAFETY: a calculation with a number.
    unsafe { libc::CMSG_LEN((descriptors * size_of::<RawFd>()) as u32) as usize }
}

/// What was received.
#[derive(Debug)]
pub(super) struct Received<const N: usize> {
    /// Bytes of the message. 0 where no message will come any more.
    pub(super) len: usize,
    /// In the order in which they were sent.
    pub(super) descriptors: [Option<OwnedFd>; N],
    /// Whether all descriptors that were sent have arrived. They have not where there were more than `N`,
    /// or this process cannot have more descriptors.
    pub(super) complete: bool,
}

/// A new pair of sockets that keep messages apart.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [-1; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: the kernel writes two numbers to the array, which outlives the call.
    let result = unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) };
    super::check(result.into())?;
    // SAFETY: the call succeeded, so this is a new descriptor that nobody else owns.
    let first = unsafe { OwnedFd::from_raw_fd(fds[0]) };
    // SAFETY: and so is this.
    Ok((first, unsafe { OwnedFd::from_raw_fd(fds[1]) }))
}

/// Sends a message, if there is room for it now.
///
/// # Errors
/// `WouldBlock` where there is no room; `InvalidInput` for too many descriptors; another where nobody can
/// receive any more, or the system lacks memory.
pub(super) fn send(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    if descriptors.len() > MAX_DESCRIPTORS {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let parts = [IoSlice::new(bytes)];
    let mut control = Control([0; space(MAX_DESCRIPTORS)]);
    let mut message = empty();
    message.msg_iov = parts.as_ptr().cast_mut().cast();
    message.msg_iovlen = parts.len();
    if !descriptors.is_empty() {
        message.msg_control = (&raw mut control.0).cast();
        message.msg_controllen = space(descriptors.len());
        // SAFETY: the control buffer is set, aligned, and has room for a header.
        let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
        // SAFETY: `header` points to the start of the control buffer, which is ours and large enough.
        let header = unsafe { &mut *header };
        header.cmsg_level = libc::SOL_SOCKET;
        header.cmsg_type = libc::SCM_RIGHTS;
        header.cmsg_len = len_with(descriptors.len());
        // SAFETY: the header is that of a message in a buffer with room for its data.
        let data = unsafe { libc::CMSG_DATA(header) }.cast::<RawFd>();
        for (index, descriptor) in descriptors.iter().enumerate() {
            // SAFETY: at most `MAX_DESCRIPTORS` numbers, for which the buffer has room. They need not
            // be aligned.
            unsafe { data.wrapping_add(index).write_unaligned(descriptor.as_raw_fd()) };
        }
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    loop {
        // SAFETY: `message` points to `parts` and `control`, which outlive the call and are only read.
        let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, flags) };
        match super::check(sent as libc::c_long) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            Ok(_) => return Ok(()),
        }
    }
}

/// Receives a message, if there is one.
///
/// # Errors
/// `WouldBlock` where there is none now; `InvalidData` where it is longer than `room`.
pub(super) fn receive<const N: usize>(
    socket: BorrowedFd<'_>,
    room: &mut [u8],
) -> io::Result<Received<N>> {
    const { assert!(N <= MAX_DESCRIPTORS) };
    let mut parts = [IoSliceMut::new(room)];
    let mut control = Control([0; space(MAX_DESCRIPTORS)]);
    let mut message = empty();
    message.msg_iov = parts.as_mut_ptr().cast();
    message.msg_iovlen = parts.len();
    message.msg_control = (&raw mut control.0).cast();
    // Not padded: the kernel would use the padding for a further descriptor.
    message.msg_controllen = len_with(N);
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    let len = loop {
        // SAFETY: `message` points to `parts` and `control`, which outlive the call; the kernel writes
        // no more than their lengths.
        let got = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
        match super::check(got as libc::c_long) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            Ok(len) => break len as usize,
        }
    };
    let descriptors = descriptors_in(&message);
    if message.msg_flags & libc::MSG_TRUNC != 0 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let complete = message.msg_flags & libc::MSG_CTRUNC == 0;
    Ok(Received { len, descriptors, complete })
}

/// The descriptors that came with a message.
fn descriptors_in<const N: usize>(message: &libc::msghdr) -> [Option<OwnedFd>; N] {
    let mut found = [const { None }; N];
    // SAFETY: the kernel has set the length of the control buffer, which is alive, to what it wrote.
    let header = unsafe { libc::CMSG_FIRSTHDR(message) };
    // SAFETY: null, or a header that the kernel has written into the buffer.
    let Some(header) = (unsafe { header.as_ref() }) else { return found };
    if header.cmsg_level != libc::SOL_SOCKET || header.cmsg_type != libc::SCM_RIGHTS {
        return found;
    }
    // SAFETY: the header is that of a message with data in the same buffer.
    let data = unsafe { libc::CMSG_DATA(header) }.cast::<RawFd>();
    for (index, found) in found.iter_mut().enumerate() {
        if header.cmsg_len >= len_with(index + 1) {
            // SAFETY: the length says that there are so many numbers.
            let number = unsafe { data.wrapping_add(index).read_unaligned() };
            // SAFETY: the kernel has opened it for this message, and nobody else has seen it.
            *found = Some(unsafe { OwnedFd::from_raw_fd(number) });
        }
    }
    found
}

/// A message header that names nothing.
fn empty() -> libc::msghdr {
    // SAFETY: null pointers and lengths of 0 are a header that names nothing.
    unsafe { MaybeUninit::zeroed().assume_init() }
}
