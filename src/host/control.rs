//! The handshake between a host and a plugin: how the plugin is told what it has inherited, and
//! what the two say on the control ring.
//!
//! Both sides of `host` use it; a plugin in another language does what stands here.
//! What always holds: every message has a fixed layout of its own that is recognised by its tag;
//! what the plugin says is checked before anything follows from it.
//!
//! # The environment variable
//!
//! The host sets `RINGWAY_PLUGIN` for the program that it executes, to one line of text:
//!
//! ```text
//! 5 host=7 session=8 pulse=-1 control=9 bell=10 active=11 passive=12 service=13 store=14 store-private=-1 payloads=15 payloads-private=-1 post=16 access=read-only name=nonebot
//! ```
//!
//! | word | what it is |
//! |---|---|
//! | `5` | version of the handshake |
//! | `host` | pidfd of the host: readable once the host has died |
//! | `session` | socket that ends when the host has died, has executed a program, or lets go of this process; the host sends questions on it, below |
//! | `pulse` | writing end of a pipe for the answers, or -1 |
//! | `control` | memory file of the control channel |
//! | `bell` | eventfd: the plugin writes 1 to it after a request |
//! | `active`, `passive` | memory files of the channels "nonebot-active" and "nonebot-passive" |
//! | `service` | memory file of the service channel, or -1 |
//! | `store` | memory file of the store's public part, or -1 |
//! | `store-private` | memory file of its private part, or -1 |
//! | `payloads`, `payloads-private` | the same of the store for large publications |
//! | `post` | socket on which the host tells of links, or -1 |
//! | `access` | what the plugin may do with two stores: none, read-only or writable |
//! | `name` | the plugin's name, up to the end: UTF-8, no control characters |
//!
//! The numbers are descriptors that the plugin has inherited. The memory files but the stores' are
//! channel segments as `layout` describes them, sealed against shrinking and growing; the host is side
//! 0, the plugin attaches side 1. What travels on the service channel stands in
//! [`frame`](super::frame). There is none where the host serves nothing, and no store where it has
//! none, or the plugin has no access; *read-only* says that the descriptor is open for reading only. A store's private
//! part is there where access is *writable*, and nowhere else.
//! The socket is one of a pair of `SOCK_SEQPACKET`, and only read by the plugin; there is one where the
//! host links processes ([`HostBuilder::links`](super::HostBuilder::links)), and then a service channel too.
//! The session is one of a `SOCK_SEQPACKET` pair too, and only read. Each message on it is a question
//! whether the plugin runs: the plugin answers with one byte on the pulse, where there is one, and never
//! waits for room. When the session ends, the host is gone: nothing in this process can reach it any more.
//! The plugin marks all of them close-on-exec before it does anything else, so that its own children
//! do not get them. These still get the variable, unless the plugin
//! takes it out of what it hands them; one that connects finds no descriptors behind the numbers,
//! and gets an error that says so.
//!
//! # Messages
//!
//! Records on the control channel are tagged with the kind of message. Their payloads are plain
//! data in native byte order, or text:
//!
//! ```text
//! tag 1, attached, plugin -> host      16 bytes: u32 version, u32 0, u64 0
//! tag 2, ready, plugin -> host         16 bytes: u64 0, u64 0
//! tag 3, restart me, plugin -> host    the reason: UTF-8, at most 256 bytes
//! tag 4, end me, plugin -> host        the same
//! tag 256, stop, host -> plugin        24 bytes: u64 cause (0 = for good, 1 = a successor follows),
//!                                      u64 ns from now to SIGTERM, u64 ns from there to SIGKILL
//! ```
//!
//! Other tags are reserved: 5 to 255 for the plugin, 257 to 511 for the host. A plugin skips the
//! host's that it does not know.
//!
//! # Order
//!
//! 1. The plugin maps all its channels, writes its side's state into each, and sends *attached*.
//! 2. The host seals them against new writable mappings and holes, and serves what is asked for on the
//!    service channel from then on. From the plugin's side nothing changes; it need not wait.
//! 3. The plugin gets ready for as long as it needs, and sends *ready*.
//! 4. Before *ready* the host ends the plugin when the time it was given is over, when another
//!    message comes than the one expected, or when a seal cannot be set.
//! 5. After *ready* the plugin may make one request: it sends *restart me* or *end me*, then rings
//!    the bell. The host hears the first ring, reads one message, and neither hears nor reads any
//!    more of this process: after a request there is nothing left to ask. What is no request is
//!    reported to the host program, and nothing follows. The plugin goes on as before, with its
//!    channels open, until it is told to stop, or ends by itself.
//! 6. To end a plugin that is *ready* the host sends *stop*, then SIGTERM, then SIGKILL, after the
//!    times that *stop* names. A plugin that listens can so finish its work, and learns whether
//!    there will be a successor; one that does not is ended by the signals. The host does not wait
//!    for room: to a plugin that has filled the ring it sends the signals alone.
//!
//! What the host sends on the other two channels may lie there before the plugin attaches: messages
//! carried over from a former incarnation do.

use std::time::Duration;

use super::error::{ConnectError, RequestProblem};
use super::spec::check_name;

/// The environment variable.
pub const VARIABLE: &str = "RINGWAY_PLUGIN";

/// Version of everything described in this module.
pub const HANDSHAKE_VERSION: u32 = 5;

/// Longest reason of a request in bytes.
pub const MAX_REASON_BYTES: usize = 256;

/// Capacity of the control channel's rings in bytes.
pub(super) const CONTROL_CAPACITY_BYTES: u64 = 4096;

/// Tag of the message *attached*.
pub(super) const TAG_ATTACHED: u16 = 1;
/// Tag of the message *ready*.
pub(super) const TAG_READY: u16 = 2;
/// Tag of the message *restart me*.
pub(super) const TAG_RESTART_ME: u16 = 3;
/// Tag of the message *end me*.
pub(super) const TAG_END_ME: u16 = 4;
/// Tag of the message *stop*.
pub(super) const TAG_STOP: u16 = 256;

/// What a plugin can ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Request {
    Restart { reason: String },
    End { reason: String },
}

/// Reads a request, of which nothing is believed that has not been checked.
pub(super) fn request_of(tag: u16, payload: &[u8]) -> Result<Request, RequestProblem> {
    if !matches!(tag, TAG_RESTART_ME | TAG_END_ME) {
        return Err(RequestProblem::Tag { found: tag });
    }
    if payload.len() > MAX_REASON_BYTES {
        return Err(RequestProblem::TooLong { len: payload.len(), max: MAX_REASON_BYTES });
    }
    let text = str::from_utf8(payload).map_err(|_| RequestProblem::NotText)?;
    // It ends up in logs and on terminals.
    let reason = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match tag {
        TAG_RESTART_ME => Ok(Request::Restart { reason }),
        _ => Ok(Request::End { reason }),
    }
}

/// Why a plugin is told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopCause {
    /// It is to end for good.
    Shutdown,
    /// A successor is to take its place, and gets what it leaves unread.
    Restart,
    /// Nobody has told it: the host is gone.
    HostGone,
}

/// What a plugin is told that is to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StopNotice {
    /// Why.
    pub cause: StopCause,
    /// How long after the host sent this SIGTERM follows.
    pub notice: Duration,
    /// How long after that SIGKILL follows.
    pub grace: Duration,
}

impl StopNotice {
    pub(super) fn to_words(self) -> [u64; 3] {
        let ns = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let cause = u64::from(self.cause == StopCause::Restart);
        [cause, ns(self.notice), ns(self.grace)]
    }

    /// `None` where the payload has another length. Any cause but 1 is an end for good.
    pub(super) fn of(payload: &[u8]) -> Option<Self> {
        let [cause, notice, grace] = bytemuck::try_pod_read_unaligned::<[u64; 3]>(payload).ok()?;
        let cause = if cause == 1 { StopCause::Restart } else { StopCause::Shutdown };
        let (notice, grace) = (Duration::from_nanos(notice), Duration::from_nanos(grace));
        Some(Self { cause, notice, grace })
    }
}

/// *Attached*: the plugin has mapped all its channels.
pub(super) fn attached() -> [u32; 4] {
    [HANDSHAKE_VERSION, 0, 0, 0]
}

/// The version in an *attached*; `None` where it has another length.
pub(super) fn version_of_attached(payload: &[u8]) -> Option<u32> {
    bytemuck::try_pod_read_unaligned::<[u32; 4]>(payload).ok().map(|words| words[0])
}

/// *Ready*: the plugin is ready.
pub(super) fn ready() -> [u64; 2] {
    [0; 2]
}

/// What the host announces in [`VARIABLE`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Announcement {
    pub(super) host: i32,
    pub(super) session: i32,
    /// -1 where there is none.
    pub(super) pulse: i32,
    pub(super) control: i32,
    pub(super) bell: i32,
    pub(super) active: i32,
    pub(super) passive: i32,
    /// -1 where there is none; and so are the stores' and the post's.
    pub(super) service: i32,
    pub(super) store: i32,
    pub(super) store_private: i32,
    /// Of the store for large publications.
    pub(super) payloads: i32,
    pub(super) payloads_private: i32,
    pub(super) post: i32,
    pub(super) access: Grant,
    pub(super) name: String,
}

/// What a plugin may do with its host's store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Grant {
    /// Nothing: it does not get it.
    None,
    /// Read it; the host writes what it asks for.
    ReadOnly,
    /// Everything.
    Writable,
}

impl Grant {
    const WORDS: [(&'static str, Self); 3] =
        [("none", Self::None), ("read-only", Self::ReadOnly), ("writable", Self::Writable)];

    fn to_word(self) -> &'static str {
        Self::WORDS[self as usize].0
    }

    fn of(word: &str) -> Option<Self> {
        Self::WORDS.into_iter().find(|(name, _)| *name == word).map(|(_, grant)| grant)
    }
}

impl Announcement {
    pub(super) fn to_text(&self) -> String {
        let Self { host, session, pulse, control, bell, active, passive, .. } = self;
        let Self { service, store, store_private, payloads, payloads_private, post, name, .. } =
            self;
        let access = self.access.to_word();
        format!(
            "{HANDSHAKE_VERSION} host={host} session={session} pulse={pulse} control={control} \
             bell={bell} active={active} passive={passive} service={service} store={store} \
             store-private={store_private} payloads={payloads} \
             payloads-private={payloads_private} post={post} access={access} name={name}"
        )
    }

    pub(super) fn parse(text: &str) -> Result<Self, ConnectError> {
        let malformed =
            |problem| ConnectError::Malformed { variable: VARIABLE, value: text.into(), problem };
        let (version, rest) = text.split_once(' ').ok_or_else(|| malformed("there is one word"))?;
        if version.parse() != Ok(HANDSHAKE_VERSION) {
            let found = version.into();
            return Err(ConnectError::Version { found, expected: HANDSHAKE_VERSION });
        }
        let (numbers, name) =
            rest.split_once(" name=").ok_or_else(|| malformed("there is no name"))?;
        check_name(name).map_err(|_| malformed("the name is not one"))?;
        let mut words = numbers.split(' ');
        let mut value =
            |key: &str| words.next().and_then(|word| word.strip_prefix(key)?.strip_prefix('='));
        let mut number = |key: &str, problem| {
            value(key).and_then(|number| number.parse().ok()).ok_or_else(|| malformed(problem))
        };
        let announcement = Self {
            host: number("host", "the first number is not host=")?,
            session: number("session", "the second number is not session=")?,
            pulse: number("pulse", "the third number is not pulse=")?,
            control: number("control", "the fourth number is not control=")?,
            bell: number("bell", "the fifth number is not bell=")?,
            active: number("active", "the sixth number is not active=")?,
            passive: number("passive", "the seventh number is not passive=")?,
            service: number("service", "the eighth number is not service=")?,
            store: number("store", "the ninth number is not store=")?,
            store_private: number("store-private", "the tenth number is not store-private=")?,
            payloads: number("payloads", "the eleventh number is not payloads=")?,
            payloads_private: number(
                "payloads-private",
                "the twelfth number is not payloads-private=",
            )?,
            post: number("post", "the thirteenth number is not post=")?,
            access: value("access")
                .and_then(Grant::of)
                .ok_or_else(|| malformed("access= is not none, read-only or writable"))?,
            name: name.into(),
        };
        if words.next().is_some() {
            return Err(malformed("there are more words than should be"));
        }
        let Self { store, store_private, payloads, payloads_private, access, .. } = announcement;
        for (public, private) in [(store, store_private), (payloads, payloads_private)] {
            if (private >= 0) != (public >= 0 && access == Grant::Writable) {
                return Err(malformed(
                    "a store's private part is there without access=writable, or missing with it",
                ));
            }
        }
        Ok(announcement)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_announcement_reads_as_it_was_written() {
        for (rest, access) in [
            (
                "service=12 store=13 store-private=-1 payloads=14 payloads-private=-1 post=15 access=read-only name=none bot name=x",
                Grant::ReadOnly,
            ),
            (
                "service=12 store=13 store-private=16 payloads=14 payloads-private=17 post=15 access=writable name=none bot name=x",
                Grant::Writable,
            ),
            (
                "service=-1 store=-1 store-private=-1 payloads=-1 payloads-private=-1 post=-1 access=none name=none bot name=x",
                Grant::None,
            ),
        ] {
            let text = format!(
                "5 host=7 session=15 pulse=-1 control=8 bell=9 active=10 passive=11 {rest}"
            );
            let announcement = Announcement::parse(&text).unwrap();
            assert_eq!((announcement.host, announcement.bell, announcement.passive), (7, 9, 11));
            assert_eq!(announcement.access, access);
            assert_eq!(announcement.service, if access == Grant::None { -1 } else { 12 });
            assert_eq!(announcement.post, if access == Grant::None { -1 } else { 15 });
            assert_eq!(announcement.name, "none bot name=x");
            assert_eq!(announcement.to_text(), text);
        }
    }

    #[test]
    fn anything_else_is_an_error_that_says_what() {
        let whole = "5 host=7 session=15 pulse=-1 control=8 bell=9 active=10 passive=11 service=12 store=13 \
                     store-private=16 payloads=14 payloads-private=17 post=15 access=writable name=nonebot";
        for end in 0..whole.len() - "onebot".len() {
            assert!(Announcement::parse(&whole[..end]).is_err(), "{:?}", &whole[..end]);
        }
        let found = |text: &str| Announcement::parse(text).unwrap_err();
        assert!(matches!(found("4 host=7"), ConnectError::Version { expected: 5, .. }));
        for text in [
            "host=x session=15 pulse=16 control=8 bell=9 active=10 passive=11 service=12 store=13 store-private=-1 payloads=14 payloads-private=-1 post=15 access=none name=n",
            "host=7 session=15 pulse=16 control=8 bell=9 passive=10 active=11 service=12 store=13 store-private=-1 payloads=14 payloads-private=-1 post=15 access=none name=n",
            "host=7 session=15 pulse=16 control=8 bell=9 active=10 passive=11 name=n",
            "host=7 session=15 pulse=16 control=8 bell=9 active=10 passive=11 service=12 store=13 store-private=-1 payloads=14 payloads-private=-1 post=15 access=all name=n",
            "host=7 session=15 pulse=16 control=8 bell=9 active=1 passive=1 service=1 store=1 store-private=-1 payloads=14 payloads-private=-1 post=1 access=none more=1 name=n",
            "host=7 session=15 pulse=16 control=8 bell=9 active=10 passive=11 service=12 store=13 store-private=-1 payloads=14 payloads-private=-1 post=15 access=none name=a/b",
            "host=7 session=15 pulse=16 control=8 bell=9 active=10 passive=99999999999 service=1 store=1 store-private=-1 payloads=14 payloads-private=-1 post=1 access=none \
             name=n",
            // A private part for a process that only reads, none for one that writes, one without a store.
            "host=7 session=15 pulse=16 control=8 bell=9 active=10 passive=11 service=12 store=13 store-private=16 payloads=14 payloads-private=-1 post=15 access=read-only name=n",
            "host=7 session=15 pulse=16 control=8 bell=9 active=10 passive=11 service=12 store=13 store-private=-1 payloads=-1 payloads-private=-1 post=15 access=writable name=n",
            "host=7 session=15 pulse=16 control=8 bell=9 active=10 passive=11 service=12 store=13 store-private=16 payloads=-1 payloads-private=17 post=15 access=writable name=n",
        ] {
            let text = &format!("5 {text}");
            assert!(matches!(found(text), ConnectError::Malformed { .. }), "{text}");
        }
    }

    #[test]
    fn a_request_is_believed_once_it_has_been_checked() {
        let found = request_of(TAG_RESTART_ME, b"no\nroom \x1b[31m");
        assert_eq!(found, Ok(Request::Restart { reason: "no room  [31m".into() }));
        assert_eq!(request_of(TAG_END_ME, b""), Ok(Request::End { reason: String::new() }));
        let longest = [b'x'; MAX_REASON_BYTES + 1];
        assert!(request_of(TAG_END_ME, &longest[1..]).is_ok());
        let too_long = RequestProblem::TooLong { len: 257, max: 256 };
        assert_eq!(request_of(TAG_END_ME, &longest), Err(too_long));
        assert_eq!(request_of(TAG_END_ME, &[0xff]), Err(RequestProblem::NotText));
        for tag in [0, TAG_READY, 5, TAG_STOP, u16::MAX] {
            assert_eq!(request_of(tag, b""), Err(RequestProblem::Tag { found: tag }));
        }
    }

    #[test]
    fn a_notice_reads_as_it_was_written() {
        let (notice, grace) = (Duration::from_millis(5), Duration::from_nanos(u64::MAX));
        for cause in [StopCause::Shutdown, StopCause::Restart] {
            let told = StopNotice { cause, notice, grace };
            assert_eq!(StopNotice::of(bytemuck::bytes_of(&told.to_words())), Some(told));
        }
        assert_eq!(StopNotice::of(&[0; 16]), None);
    }
}
