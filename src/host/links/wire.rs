//! Links as bytes: requests on the service channel, letters in the post.
//!
//! A desk writes requests and reads letters, the broker the reverse. What always holds: what is read
//! has been checked for its length, its numbers and its text; anything else is `None`. All numbers are
//! in native byte order.
//!
//! ```text
//! listen, connect, join (LISTEN, CONNECT, JOIN):
//! 0      8      16        24     32       40     48    52    56       60       64
//! +------+------+---------+------+--------+------+-----+-----+--------+--------+------+------+
//! | token| group| capacity| reply| longest| types| kind|flags|name len|note len| name | note |
//! +------+------+---------+------+--------+------+-----+-----+--------+--------+------+------+
//!
//! withdraw (WITHDRAW):   u64 token
//! answer, over (ANSWER, OVER):   u64 link, u32 side, u32 how
//! list (LIST):   u64 after, u32 kind, u32 name len, name
//!
//! a letter:
//! 0     4      8      16      24      28         30         32
//! +-----+------+------+-------+-------+----------+----------+------+------+
//! | what| side | link | token | flags | peer len | note len | peer | note |
//! +-----+------+------+-------+-------+----------+----------+------+------+
//! ```

use super::{Kind, MAX_NOTE_BYTES};
use crate::error::SegmentError;
use crate::host::service::frame::{self, SERVICE_LINKS, STATUS_FIRST_OWN, op};
use crate::host::spec::{MAX_NAME_BYTES, check_name};
use crate::memory::FenceMode;
use crate::segment::{ChannelGeometry, Kind as _};

pub(super) const OP_LISTEN: u32 = op(SERVICE_LINKS, 1);
pub(super) const OP_CONNECT: u32 = op(SERVICE_LINKS, 2);
pub(super) const OP_JOIN: u32 = op(SERVICE_LINKS, 3);
pub(super) const OP_WITHDRAW: u32 = op(SERVICE_LINKS, 4);
pub(super) const OP_ANSWER: u32 = op(SERVICE_LINKS, 5);
pub(super) const OP_OVER: u32 = op(SERVICE_LINKS, 6);
pub(super) const OP_LIST: u32 = op(SERVICE_LINKS, 7);

pub(super) const STATUS_UNKNOWN_NAME: u32 = STATUS_FIRST_OWN;
pub(super) const STATUS_DUPLICATE: u32 = STATUS_FIRST_OWN + 1;
/// Followed by the listener's fingerprint.
pub(super) const STATUS_TYPES: u32 = STATUS_FIRST_OWN + 2;
/// Followed by which limit, and what it is.
pub(super) const STATUS_TOO_MANY: u32 = STATUS_FIRST_OWN + 3;
/// Followed by the link.
pub(super) const STATUS_LINKED: u32 = STATUS_FIRST_OWN + 4;
pub(super) const STATUS_RESERVED: u32 = STATUS_FIRST_OWN + 5;
/// The sender is no party any more.
pub(super) const STATUS_CLOSED: u32 = STATUS_FIRST_OWN + 6;

/// The end has attached.
pub(super) const ATTACHED: u32 = 0;
/// The end cannot attach, or does not want to any more.
pub(super) const REFUSED: u32 = 1;

/// What names of tickets begin with, which no other name does.
const TICKET: char = '/';
/// Endings of the names of plugins' own channels.
const PAIR: [&str; 2] = ["-active", "-passive"];

/// Longest letter in bytes.
pub(super) const MAX_LETTER_BYTES: usize = LETTER_BYTES + MAX_NAME_BYTES + MAX_NOTE_BYTES;
const LETTER_BYTES: usize = 32;
const ASK_BYTES: usize = 64;
const ENTRY_BYTES: usize = 16;
/// Who listens need not sleep cheaply.
const FLAG_REAL_FENCE: u32 = 1;

/// What a party asks for that listens, connects or joins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ask {
    /// By which the party knows it again.
    pub(super) token: u64,
    /// The same for all that belongs to one inbox.
    pub(super) group: u64,
    pub(super) kind: Kind,
    pub(super) name: String,
    pub(super) note: Vec<u8>,
    /// Of who listens; of who connects the types alone matter.
    pub(super) shape: Shape,
}

/// What a link's segment is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Shape {
    pub(super) capacities: [u64; 2],
    pub(super) max_message_bytes: u64,
    /// What the segment's header says.
    pub(super) types: u64,
    pub(super) real_fence: bool,
}

impl Shape {
    pub(super) fn geometry(&self) -> ChannelGeometry {
        let fence = if self.real_fence { FenceMode::Real } else { FenceMode::detect() };
        ChannelGeometry {
            max_message_bytes: self.max_message_bytes,
            type_fingerprint: self.types,
            ..ChannelGeometry::records(self.capacities, 8, fence)
        }
    }

    /// Length of the segment.
    ///
    /// # Errors
    /// There can be no such channel.
    pub(super) fn len_bytes(&self) -> Result<u64, SegmentError> {
        self.geometry().len_bytes()
    }
}

/// The name of a listener that only who has the ticket can find.
pub(in crate::host) fn name_of_ticket(ticket: [u8; 16]) -> String {
    format!("{TICKET}{:032x}", u128::from_be_bytes(ticket))
}

/// Whether a name is a ticket's.
pub(super) fn is_ticket(name: &str) -> bool {
    name.starts_with(TICKET)
}

/// Whether a name is one of a plugin's own channels, or could be.
pub(super) fn is_of_pair(name: &str) -> bool {
    PAIR.iter().any(|ending| name.ends_with(ending))
}

/// The names of a plugin's own channels.
pub(super) fn pair_of(plugin: &str) -> [String; 2] {
    PAIR.map(|ending| format!("{plugin}{ending}"))
}

/// Whether a name can be listened to.
pub(super) fn is_name(kind: Kind, name: &str) -> bool {
    match name.strip_prefix(TICKET) {
        Some(digits) => {
            let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
            kind == Kind::Channel && digits.len() == 32 && digits.bytes().all(is_digit)
        }
        None => check_name(name).is_ok(),
    }
}

impl Kind {
    fn of(number: u32) -> Option<Self> {
        [Self::Channel, Self::Topic, Self::Rpc].into_iter().find(|kind| *kind as u32 == number)
    }
}

impl Ask {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let Self { token, group, kind, name, note, shape } = self;
        let [capacity, reply] = shape.capacities;
        let longs = [*token, *group, capacity, reply, shape.max_message_bytes, shape.types];
        let flags = if shape.real_fence { FLAG_REAL_FENCE } else { 0 };
        let shorts = [*kind as u32, flags, name.len() as u32, note.len() as u32];
        let (longs, shorts) = (bytemuck::bytes_of(&longs), bytemuck::bytes_of(&shorts));
        [longs, shorts, name.as_bytes(), note].concat()
    }

    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk::<ASK_BYTES>()?;
        let (longs, shorts) = head.split_at(48);
        let [token, group, capacity, reply, max_message_bytes, types] =
            bytemuck::pod_read_unaligned::<[u64; 6]>(longs);
        let [kind, flags, name_len, note_len] = bytemuck::pod_read_unaligned::<[u32; 4]>(shorts);
        let (name, note) = rest.split_at_checked(name_len as usize)?;
        let (kind, name) = (Kind::of(kind)?, str::from_utf8(name).ok()?);
        let in_order = note.len() == note_len as usize
            && note.len() <= MAX_NOTE_BYTES
            && flags & !FLAG_REAL_FENCE == 0
            && is_name(kind, name);
        let real_fence = flags & FLAG_REAL_FENCE != 0;
        let capacities = [capacity, reply];
        let shape = Shape { capacities, max_message_bytes, types, real_fence };
        let (name, note) = (name.into(), note.into());
        in_order.then_some(Self { token, group, kind, name, note, shape })
    }
}

/// One end of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct EndId {
    pub(super) link: u64,
    /// 0 for who connected or joined, 1 for who listens.
    pub(super) side: usize,
}

impl EndId {
    pub(super) fn other(self) -> Self {
        Self { side: 1 - self.side, ..self }
    }

    pub(super) fn to_bytes(self, how: u32) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.link.to_ne_bytes());
        bytes[8..].copy_from_slice(bytemuck::bytes_of(&[self.side as u32, how]));
        bytes
    }

    pub(super) fn of(bytes: &[u8]) -> Option<(Self, u32)> {
        let [link, _] = bytemuck::try_pod_read_unaligned::<[u64; 2]>(bytes).ok()?;
        let [_, _, side, how] = bytemuck::try_pod_read_unaligned::<[u32; 4]>(bytes).ok()?;
        (side < 2).then_some((Self { link, side: side as usize }, how))
    }
}

/// Asks for the first entry after this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ListAsk {
    pub(super) kind: Kind,
    pub(super) name: String,
    pub(super) id: u64,
}

impl ListAsk {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let shorts = [self.kind as u32, self.name.len() as u32];
        [&self.id.to_ne_bytes(), bytemuck::bytes_of(&shorts), self.name.as_bytes()].concat()
    }

    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        let (head, name) = bytes.split_first_chunk::<16>()?;
        let [id, _] = bytemuck::pod_read_unaligned::<[u64; 2]>(head);
        let [_, _, kind, len] = bytemuck::pod_read_unaligned::<[u32; 4]>(head);
        let name = str::from_utf8(name).ok().filter(|name| name.len() == len as usize)?;
        Some(Self { kind: Kind::of(kind)?, name: name.into(), id })
    }
}

/// Of the longest name there is, and the plugin that has it by itself.
const LONGEST_ENTRY_BYTES: usize = ENTRY_BYTES + 2 * MAX_NAME_BYTES + PAIR[1].len();
const _: () = assert!(LONGEST_ENTRY_BYTES <= frame::MAX_REPLY_BYTES);

/// One listener, as the answer to [`ListAsk`]; the end of the list is an answer without a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) plugin: String,
}

impl Entry {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let shorts = [self.name.len() as u32, self.plugin.len() as u32];
        let texts = [self.name.as_bytes(), self.plugin.as_bytes()].concat();
        [&self.id.to_ne_bytes(), bytemuck::bytes_of(&shorts), &texts].concat()
    }

    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk::<ENTRY_BYTES>()?;
        let [id, _] = bytemuck::pod_read_unaligned::<[u64; 2]>(head);
        let [_, _, name_len, plugin_len] = bytemuck::pod_read_unaligned::<[u32; 4]>(head);
        let (name, plugin) = rest.split_at_checked(name_len as usize)?;
        let text = |bytes| str::from_utf8(bytes).ok().map(String::from);
        let entry = Self { id, name: text(name)?, plugin: text(plugin)? };
        (plugin.len() == plugin_len as usize).then_some(entry)
    }
}

/// What a letter says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// Attach this segment, and answer. The only letter with a descriptor in it.
    Offer = 1,
    /// Both have attached, and the segment is sealed: use it.
    Go = 2,
    /// Nothing will come of it.
    Gone = 3,
    /// The other end is over.
    Over = 4,
}

/// What the host tells a party of one of its ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Letter {
    pub(super) what: What,
    pub(super) end: EndId,
    /// The party's own word for what it asked for.
    pub(super) token: u64,
    /// Whether the link was begun when the party asked, and counts among those that it waits for.
    pub(super) begun: bool,
    /// In an offer: the other end's plugin, and what it says.
    pub(super) peer: String,
    pub(super) note: Vec<u8>,
}

impl Letter {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let Self { what, end, token, begun, peer, note } = self;
        let head = [*what as u32, end.side as u32];
        let longs = [end.link, *token];
        let lens = [peer.len() as u16, note.len() as u16];
        let flags = u32::from(*begun).to_ne_bytes();
        let (head, longs) = (bytemuck::bytes_of(&head), bytemuck::bytes_of(&longs));
        [head, longs, &flags, bytemuck::bytes_of(&lens), peer.as_bytes(), note].concat()
    }

    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk::<LETTER_BYTES>()?;
        let [what, side, ..] = bytemuck::pod_read_unaligned::<[u32; 8]>(head);
        let [_, link, token, _] = bytemuck::pod_read_unaligned::<[u64; 4]>(head);
        let [.., flags, _] = bytemuck::pod_read_unaligned::<[u32; 8]>(head);
        let [.., peer_len, note_len] = bytemuck::pod_read_unaligned::<[u16; 16]>(head);
        let what = [What::Offer, What::Go, What::Gone, What::Over]
            .into_iter()
            .find(|known| *known as u32 == what)?;
        let (peer, note) = rest.split_at_checked(peer_len.into())?;
        let in_order = side < 2 && flags < 2 && note.len() == usize::from(note_len);
        let (peer, note) = (str::from_utf8(peer).ok()?.into(), note.into());
        let end = EndId { link, side: side as usize };
        in_order.then_some(Self { what, end, token, begun: flags == 1, peer, note })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(name: &str) -> Ask {
        let shape =
            Shape { capacities: [4096, 8192], max_message_bytes: 100, types: 7, real_fence: true };
        let (name, note) = (name.into(), b"note".into());
        Ask { token: 1, group: 2, kind: Kind::Channel, name, note, shape }
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        let ask = ask("name");
        let bytes = ask.to_bytes();
        assert_eq!(Ask::of(&bytes), Some(ask));
        let letter = Letter {
            what: What::Over,
            end: EndId { link: 9, side: 1 },
            token: 3,
            begun: true,
            peer: "peer".into(),
            note: vec![1, 2],
        };
        let written = letter.to_bytes();
        assert_eq!(Letter::of(&written), Some(letter));
        let list = ListAsk { kind: Kind::Rpc, name: "n".into(), id: 4 };
        assert_eq!(ListAsk::of(&list.to_bytes()), Some(list));
        let entry = Entry { id: 5, name: "name".into(), plugin: String::new() };
        assert_eq!(Entry::of(&entry.to_bytes()), Some(entry));
        let end = EndId { link: 6, side: 0 };
        assert_eq!(EndId::of(&end.to_bytes(1)), Some((end, 1)));
        for cut in 0..bytes.len() {
            assert_eq!(Ask::of(&bytes[..cut]), None);
        }
        for cut in 0..written.len() {
            assert_eq!(Letter::of(&written[..cut]), None);
        }
        assert_eq!(EndId::of(&EndId { link: 6, side: 2 }.to_bytes(1)), None);
    }

    #[test]
    fn names_of_tickets_are_names_that_nobody_else_can_have() {
        let name = name_of_ticket([0xab; 16]);
        assert!(is_ticket(&name) && Ask::of(&ask(&name).to_bytes()).is_some());
        for name in ["", "a/b", "/", "/00", &name[..32], &name.to_uppercase(), "a\nb"] {
            assert_eq!(Ask::of(&ask(name).to_bytes()), None, "{name:?}");
        }
        let topic = Ask { kind: Kind::Topic, ..ask(&name) };
        assert_eq!(Ask::of(&topic.to_bytes()), None);
    }
}
