//! What travels on a service channel: frames.
//!
//! The plugin's `Client` writes requests and reads replies, the host's
//! `Server` the reverse. What always holds: a frame is a header of sixteen bytes and
//! a payload that belongs to the operation; whoever reads one has checked its length first.
//!
//! ```text
//! 0        4        8                16
//! +--------+--------+----------------+----------------------
//! | op     | status | id             | payload
//! +--------+--------+----------------+----------------------
//! ```
//!
//! All in native byte order. `op` names a service (high half) and one of its operations (low half).
//! `id` is the requester's: no two of its requests that are under way have the same. A reply repeats
//! `op` and `id`. `status` is 0 in a request; in a reply it says how the request ended:
//!
//! | status | meaning |
//! |---|---|
//! | 0 | done; the payload is the result |
//! | 1 | the host knows no such operation |
//! | 2 | the result does not fit into a reply; the request may have been carried out |
//! | from 256 | the service's own |
//!
//! The others are reserved. A reply whose id nobody waits for is skipped. At most [`MAX_IN_FLIGHT`]
//! requests of a plugin's process are under way at a time: a host that has no room for a reply serves
//! the plugin no longer.

/// The service of the host itself.
pub const SERVICE_HOST: u16 = 0;
/// The store.
pub const SERVICE_STORE: u16 = 1;
/// Other plugins: seeing them, and acting on them.
pub const SERVICE_PLUGINS: u16 = 3;

/// Links between processes. What its requests and answers carry is the library's own business.
pub const SERVICE_LINKS: u16 = 2;

/// The store for large publications, which plugins ask for nothing.
pub const SERVICE_PAYLOADS: u16 = 4;

/// Operation of the host itself: answers with the payload of the request, which is no longer than that
/// of a reply can be.
pub const OP_ECHO: u32 = op(SERVICE_HOST, 1);

/// Operation of the store: changes it, as the request's payload says. The answer has 40 bytes.
pub const OP_STORE_WRITE: u32 = op(SERVICE_STORE, 1);
/// Operation of the store: does what a watch needs, as the request's payload says. The answer has at most 20 bytes.
pub const OP_STORE_WATCH: u32 = op(SERVICE_STORE, 2);

/// Operation on plugins: lists them.
pub const OP_PLUGIN_LIST: u32 = op(SERVICE_PLUGINS, 1);
/// Answered at the next change of the plugin, or when the request's time is over.
pub const OP_PLUGIN_WATCH: u32 = op(SERVICE_PLUGINS, 2);
/// Answered when it has begun; and so are the others.
pub const OP_PLUGIN_RESTART: u32 = op(SERVICE_PLUGINS, 3);
/// As above.
pub const OP_PLUGIN_STOP: u32 = op(SERVICE_PLUGINS, 4);
/// As above.
pub const OP_PLUGIN_KILL: u32 = op(SERVICE_PLUGINS, 5);

/// Status of a request that was carried out.
pub const STATUS_DONE: u32 = 0;
/// Status of an operation that the host does not know.
pub const STATUS_UNKNOWN: u32 = 1;
/// Status of a request whose result is too long.
pub const STATUS_TOO_LONG: u32 = 2;
/// The first status that belongs to the services themselves.
pub const STATUS_FIRST_OWN: u32 = 256;

/// Bytes of a frame's header.
pub const HEADER_BYTES: usize = 16;

/// Capacity of each ring of a service channel in bytes.
pub const CAPACITY_BYTES: u64 = 64 << 10;

/// How many requests of one process can be under way. So many replies, of the length that
/// [`MAX_REPLY_BYTES`] says, fit into the ring at once: a process that keeps to it loses none.
pub const MAX_IN_FLIGHT: usize = 256;

/// Longest payload of a reply in bytes.
pub const MAX_REPLY_BYTES: usize = 200;

/// The name of an operation of a service.
pub const fn op(service: u16, operation: u16) -> u32 {
    (service as u32) << 16 | operation as u32
}

/// The service that an operation belongs to.
pub const fn service_of(op: u32) -> u16 {
    (op >> 16) as u16
}

/// A frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Service and operation.
    pub op: u32,
    /// How the request ended; 0 in a request.
    pub status: u32,
    /// Which request.
    pub id: u64,
}

impl Header {
    /// Takes a frame apart; `None` where it is shorter than a header.
    pub fn of(frame: &[u8]) -> Option<(Self, &[u8])> {
        let (header, payload) = frame.split_first_chunk::<HEADER_BYTES>()?;
        let [op, status, ..] = bytemuck::pod_read_unaligned::<[u32; 4]>(header);
        let [_, id] = bytemuck::pod_read_unaligned::<[u64; 2]>(header);
        Some((Self { op, status, id }, payload))
    }

    /// What the payload follows.
    pub fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(bytemuck::bytes_of(&[self.op, self.status]));
        bytes[8..].copy_from_slice(&self.id.to_ne_bytes());
        bytes
    }
}

const _: () = {
    // Header of the record, header of the frame, payload; and a ring's own need of half of itself.
    let longest = 8 + HEADER_BYTES + MAX_REPLY_BYTES;
    assert!(longest * MAX_IN_FLIGHT + 2 * longest <= CAPACITY_BYTES as usize);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_reads_as_it_was_written() {
        let header = Header { op: op(7, 9), status: 3, id: u64::MAX - 1 };
        let frame = [&header.to_bytes()[..], b"payload"].concat();
        assert_eq!(Header::of(&frame), Some((header, &b"payload"[..])));
        assert_eq!((service_of(header.op), header.op & 0xffff), (7, 9));
        assert_eq!(Header::of(&frame[..16]), Some((header, &b""[..])));
        assert_eq!(Header::of(&frame[..15]), None);
    }
}
