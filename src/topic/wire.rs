//! What travels from a publisher to a subscriber, and what they tell each other before.
//!
//! Both sides of a link use it. What always holds: a publication of which the one before was sent is
//! its payload and nothing else; a number is told where one is missing, behind the payload, which so
//! lies at the beginning of a record, where it is aligned; bytes of the other side are checked here.

use std::time::Duration;

use super::options::BackpressurePolicy;

/// Tags of records.
pub(super) mod tag {
    /// A publication, the one behind the record before it.
    pub(in crate::topic) const PLAIN: u16 = 0;
    /// Bit: the last eight bytes are the publication's number.
    pub(in crate::topic) const NUMBERED: u16 = 1;
    /// Bit: not the publication, but where in the store it is.
    pub(in crate::topic) const STORED: u16 = 2;
    /// The publisher has the link: what it publishes from now on, it sends.
    pub(in crate::topic) const START: u16 = 4;
    /// Eight bytes: the number of the first publication that is sent.
    pub(in crate::topic) const FIRST: u16 = 5;
    /// Eight bytes: the number that the next publication would have had. Nothing follows.
    pub(in crate::topic) const END: u16 = 6;
}

/// Bytes of a number.
pub(super) const NUMBER_BYTES: usize = 8;

/// Of the notes. A side that knows only another one drops the link.
const VERSION: u32 = 1;

/// Flag of a subscriber's note: it can read the host's store.
const HAS_STORE: u64 = 1;

/// A record, as it was understood.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record<'a> {
    Publication { number: Option<u64>, payload: &'a [u8] },
    Stored { number: Option<u64>, place: Place<'a> },
    Start,
    First(u64),
    End(u64),
}

/// Where in the store a publication is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place<'a> {
    /// No other value ever gets it, so that nothing else can be taken for the publication.
    pub(super) version: u64,
    pub(super) len_bytes: u64,
    pub(super) key: &'a [u8],
}

impl Place<'_> {
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let head = [self.version, self.len_bytes];
        [bytemuck::bytes_of(&head), self.key].concat()
    }
}

impl<'a> Record<'a> {
    /// `None` where no publisher sends that.
    pub(super) fn of(tag: u16, bytes: &'a [u8]) -> Option<Self> {
        let number = |bytes: &[u8]| Some(u64::from_ne_bytes(bytes.try_into().ok()?));
        match tag {
            tag::START => return bytes.is_empty().then_some(Self::Start),
            tag::FIRST => return number(bytes).map(Self::First),
            tag::END => return number(bytes).map(Self::End),
            _ => {}
        }
        if tag & !(tag::NUMBERED | tag::STORED) != 0 {
            return None;
        }
        let (payload, number) = match tag & tag::NUMBERED {
            0 => (bytes, None),
            _ => {
                let (payload, last) = bytes.split_last_chunk::<NUMBER_BYTES>()?;
                (payload, Some(u64::from_ne_bytes(*last)))
            }
        };
        if tag & tag::STORED == 0 {
            return Some(Self::Publication { number, payload });
        }
        let (version, rest) = payload.split_first_chunk()?;
        let (len_bytes, key) = rest.split_first_chunk()?;
        let (version, len_bytes) = (u64::from_ne_bytes(*version), u64::from_ne_bytes(*len_bytes));
        Some(Self::Stored { number, place: Place { version, len_bytes, key } })
    }
}

/// What a subscriber says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SubscriberNote {
    pub(super) backpressure: BackpressurePolicy,
    pub(super) has_store: bool,
    /// Of the type that it takes; 0 where it takes any bytes.
    pub(super) fingerprint: u64,
}

impl SubscriberNote {
    /// Version and policy, flags, what the policy is told, fingerprint.
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let (policy, limit): (u32, u64) = match self.backpressure {
            BackpressurePolicy::Block(limit) => (0, nanos(limit)),
            BackpressurePolicy::DropNewest => (1, 0),
            BackpressurePolicy::DropOldest { queue_bytes } => (2, queue_bytes),
            BackpressurePolicy::Disconnect => (3, 0),
        };
        let flags = if self.has_store { HAS_STORE } else { 0 };
        let first = u64::from(VERSION) << 32 | u64::from(policy);
        bytemuck::bytes_of(&[first, flags, limit, self.fingerprint]).to_vec()
    }

    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        let words = bytemuck::try_pod_read_unaligned::<[u64; 4]>(bytes).ok()?;
        let [first, flags, limit, fingerprint] = words;
        let backpressure = match first as u32 {
            0 => BackpressurePolicy::Block(Duration::from_nanos(limit)),
            1 => BackpressurePolicy::DropNewest,
            2 => BackpressurePolicy::DropOldest { queue_bytes: limit },
            3 => BackpressurePolicy::Disconnect,
            _ => return None,
        };
        let has_store = flags & HAS_STORE != 0;
        (first >> 32 == u64::from(VERSION)).then_some(Self { backpressure, has_store, fingerprint })
    }
}

/// What a publisher says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PublisherNote {
    /// Of the type that it sends; 0 where it may send any bytes.
    pub(super) fingerprint: u64,
}

impl PublisherNote {
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        bytemuck::bytes_of(&[u64::from(VERSION), self.fingerprint]).to_vec()
    }

    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        let [version, fingerprint] = bytemuck::try_pod_read_unaligned::<[u64; 2]>(bytes).ok()?;
        (version == u64::from(VERSION)).then_some(Self { fingerprint })
    }
}

/// Whether a subscriber of one type can take what a publisher of another sends.
pub(super) fn suits(subscriber: u64, publisher: u64) -> bool {
    subscriber == 0 || subscriber == publisher
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_they_were_written() {
        let place = Place { version: 7, len_bytes: 9, key: b"key" };
        let bytes = place.to_bytes();
        assert_eq!(Record::of(tag::STORED, &bytes), Some(Record::Stored { number: None, place }));
        let numbered = [b"payload".as_slice(), &3_u64.to_ne_bytes()].concat();
        assert_eq!(
            Record::of(tag::NUMBERED, &numbered),
            Some(Record::Publication { number: Some(3), payload: b"payload" })
        );
        assert_eq!(Record::of(tag::START, b""), Some(Record::Start));
        for (tag, bytes) in [
            (tag::START, &b"x"[..]),
            (tag::FIRST, b"short"),
            (tag::END, b""),
            (tag::NUMBERED, b"1234567"),
            (tag::STORED, &[0; 15]),
            (tag::STORED | tag::NUMBERED, &[0; 23]),
            (8, b""),
            (u16::MAX, &[0; 32]),
        ] {
            assert_eq!(Record::of(tag, bytes), None, "{tag} {bytes:?}");
        }
    }

    #[test]
    fn notes_are_read_as_they_were_written_and_nothing_else_is() {
        for backpressure in [
            BackpressurePolicy::Block(Duration::from_millis(3)),
            BackpressurePolicy::DropNewest,
            BackpressurePolicy::DropOldest { queue_bytes: 5 },
            BackpressurePolicy::Disconnect,
        ] {
            let note = SubscriberNote { backpressure, has_store: true, fingerprint: 9 };
            let mut bytes = note.to_bytes();
            assert_eq!(SubscriberNote::of(&bytes), Some(note));
            assert_eq!(SubscriberNote::of(&bytes[1..]), None);
            bytes[0] = 4;
            assert_eq!(SubscriberNote::of(&bytes), None, "a policy that there is not");
        }
        let mut bytes = PublisherNote { fingerprint: 4 }.to_bytes();
        assert_eq!(PublisherNote::of(&bytes), Some(PublisherNote { fingerprint: 4 }));
        bytes[0] += 1;
        assert_eq!(PublisherNote::of(&bytes), None, "another version");
    }
}
