//! Requests about other plugins, and their answers, as bytes.
//!
//! Both sides use it; the numbers of the operations stand in [`frame`]. What always holds: whatever bytes come, they are
//! either what is said here or `None`; an answer is no longer than a reply can be.
//!
//! | operation | request | answer |
//! |---|---|---|
//! | list | a name, or nothing | entries of the plugins behind that name, in order, as many as fit; none at the end |
//! | watch | u64 number of the last change seen, u64 ns to wait, a name | an entry |
//! | restart, stop, kill | a name | nothing |
//!
//! An entry is 32 bytes and the name, all in native byte order:
//!
//! ```text
//! 0        8             12      16     20      24       28         32
//! +--------+-------------+-------+------+-------+--------+----------+------
//! | number | incarnation | state | how  | value | missed | name_len | name
//! +--------+-------------+-------+------+-------+--------+----------+------
//!                         0 starting  how a process ended, 0 where none has:
//!                         1 running     1 exited, value is its code
//!                         2 restarting  2 killed, value is the signal
//!                         3 ended       3 nobody knows
//! ```
//!
//! A watch with the number [`NOW`] is answered at once, with where the plugin is.

use super::roster::Change;
use crate::error::ExitReason;
use crate::host::handle::PluginState;
use crate::host::service::frame;
use crate::host::spec::check_name;

/// The host has no plugin of that name.
pub(super) const STATUS_UNKNOWN_NAME: u32 = frame::STATUS_FIRST_OWN;
/// Nothing has changed in time.
pub(super) const STATUS_NOTHING: u32 = frame::STATUS_FIRST_OWN + 1;
/// The host program does not allow it.
pub(super) const STATUS_NOT_PERMITTED: u32 = frame::STATUS_FIRST_OWN + 2;
/// The plugin does not run.
pub(super) const STATUS_NOT_RUNNING: u32 = frame::STATUS_FIRST_OWN + 3;
/// Too many actions of this process are being carried out.
pub(super) const STATUS_BUSY: u32 = frame::STATUS_FIRST_OWN + 4;

/// The system does not let the host signal the plugin.
pub(super) const STATUS_DENIED: u32 = frame::STATUS_FIRST_OWN + 5;

/// No change has this number.
pub(super) const NOW: u64 = u64::MAX;

const ENTRY_BYTES: usize = 32;

/// A name, where these bytes are one.
pub(super) fn name_of(bytes: &[u8]) -> Option<&str> {
    str::from_utf8(bytes).ok().filter(|name| check_name(name).is_ok())
}

/// A request to watch.
pub(super) fn watch(seen: u64, timeout_ns: u64, name: &str) -> Vec<u8> {
    [&seen.to_ne_bytes()[..], &timeout_ns.to_ne_bytes(), name.as_bytes()].concat()
}

/// The number, the time in nanoseconds and the name of a request to watch.
pub(super) fn watch_of(bytes: &[u8]) -> Option<(u64, u64, &str)> {
    let (words, name) = bytes.split_first_chunk::<16>()?;
    let [seen, timeout_ns] = bytemuck::pod_read_unaligned::<[u64; 2]>(words);
    Some((seen, timeout_ns, name_of(name)?))
}

/// Appends an entry. False where it does not fit.
pub(super) fn push_entry(reply: &mut Vec<u8>, name: &str, change: &Change) -> bool {
    if reply.len() + ENTRY_BYTES + name.len() > frame::MAX_REPLY_BYTES {
        return false;
    }
    let (state, reason) = match change.state {
        PluginState::Starting | PluginState::Foreign => (0, None),
        PluginState::Running => (1, None),
        PluginState::Restarting { reason } => (2, Some(reason)),
        PluginState::Ended { reason } => (3, Some(reason)),
    };
    let (how, value) = match reason {
        None => (0, 0),
        Some(ExitReason::Code(code)) => (1, code),
        Some(ExitReason::Signal(signal)) => (2, signal),
        Some(ExitReason::Unknown) => (3, 0),
    };
    let name_len = name.len() as u32;
    let words =
        [change.incarnation, state, how, value.cast_unsigned(), change.missed.into(), name_len];
    reply.extend_from_slice(&change.number.to_ne_bytes());
    reply.extend_from_slice(bytemuck::bytes_of(&words));
    reply.extend_from_slice(name.as_bytes());
    true
}

/// Takes an entry off the front.
pub(super) fn take_entry(reply: &mut &[u8]) -> Option<(String, Change)> {
    let (number, rest) = reply.split_first_chunk::<8>()?;
    let (words, rest) = rest.split_first_chunk::<24>()?;
    let [incarnation, state, how, value, missed, name_len] =
        bytemuck::pod_read_unaligned::<[u32; 6]>(words);
    let (name, rest) = rest.split_at_checked(name_len as usize)?;
    let reason = match how {
        1 => ExitReason::Code(value.cast_signed()),
        2 => ExitReason::Signal(value.cast_signed()),
        _ => ExitReason::Unknown,
    };
    let state = match state {
        0 => PluginState::Starting,
        1 => PluginState::Running,
        2 => PluginState::Restarting { reason },
        3 => PluginState::Ended { reason },
        _ => return None,
    };
    let number = u64::from_ne_bytes(*number);
    let name = name_of(name)?.to_owned();
    *reply = rest;
    Some((name, Change { number, state, incarnation, missed: missed != 0 }))
}

const _: () = assert!(ENTRY_BYTES + crate::host::MAX_NAME_BYTES <= frame::MAX_REPLY_BYTES);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_read_as_they_were_written() {
        let mut written = Vec::new();
        let mut reply = Vec::new();
        for (number, state) in [
            PluginState::Starting,
            PluginState::Running,
            PluginState::Restarting { reason: ExitReason::Signal(9) },
            PluginState::Ended { reason: ExitReason::Code(-1) },
            PluginState::Ended { reason: ExitReason::Unknown },
        ]
        .into_iter()
        .enumerate()
        {
            let change =
                Change { number: number as u64, state, incarnation: 7, missed: number == 1 };
            assert!(push_entry(&mut reply, "n", &change));
            written.push((String::from("n"), change));
        }
        assert!(!push_entry(&mut reply, &"n".repeat(64), &written[0].1), "no room");
        let mut rest = &reply[..];
        let read: Vec<_> = std::iter::from_fn(|| take_entry(&mut rest)).collect();
        assert_eq!((read, rest), (written, &[][..]));
        for len in 1..33 {
            assert_eq!(take_entry(&mut &reply[..len]), None, "{len}");
        }
    }

    #[test]
    fn what_is_no_request_is_none() {
        assert_eq!(watch_of(&watch(3, 5, "n")), Some((3, 5, "n")));
        assert_eq!(watch_of(&watch(3, 5, "")), None);
        assert_eq!(watch_of(&watch(3, 5, "a/b")), None);
        assert_eq!(watch_of(&[0; 15]), None);
        assert_eq!(name_of(&[0xff]), None);
        assert_eq!(name_of("n".repeat(65).as_bytes()), None);
    }
}
