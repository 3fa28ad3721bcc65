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
//! 1 host=7 control=8 active=9 passive=10 name=nonebot
//! | |      |         |        |          the plugin's name, up to the end: UTF-8, no control characters
//! | |      |         |        memory file of the channel "nonebot-passive"
//! | |      |         memory file of the channel "nonebot-active"
//! | |      memory file of the control channel
//! | pidfd of the host: readable once the host has died
//! version of the handshake
//! ```
//!
//! The numbers are descriptors that the plugin has inherited. The three memory files are channel
//! segments as `layout` describes them, sealed against shrinking and growing; the host is side 0,
//! the plugin attaches side 1. The plugin marks all four close-on-exec before it does anything
//! else, so that its own children do not get them.
//!
//! # Messages
//!
//! Records on the control channel are tagged with the kind of message. Their payloads are plain
//! data in native byte order:
//!
//! ```text
//! tag 1, attached, plugin -> host      16 bytes: u32 version, u32 0, u64 0
//! tag 2, ready, plugin -> host         16 bytes: u64 0, u64 0
//! ```
//!
//! Other tags are reserved: 3 to 255 for the plugin, 256 to 511 for the host (restart, stop).
//!
//! # Order
//!
//! 1. The plugin maps all three segments, writes its side's state into each, and sends *attached*.
//! 2. The host seals the three against new writable mappings and holes. From the plugin's side
//!    nothing changes; it need not wait.
//! 3. The plugin gets ready for as long as it needs, and sends *ready*.
//! 4. Before *ready* the host ends the plugin when the time it was given is over, when another
//!    message comes than the one expected, or when a seal cannot be set. After *ready*, the control
//!    ring is quiet.
//!
//! What the host sends on the other two channels may lie there before the plugin attaches: messages
//! carried over from a former incarnation do.

use super::error::ConnectError;
use super::spec::check_name;

/// The environment variable.
pub const VARIABLE: &str = "RINGWAY_PLUGIN";

/// Version of everything described in this module.
pub const HANDSHAKE_VERSION: u32 = 1;

/// Capacity of the control channel's rings in bytes.
pub(super) const CONTROL_CAPACITY_BYTES: u64 = 4096;

/// Tag of the message *attached*.
pub(super) const TAG_ATTACHED: u16 = 1;
/// Tag of the message *ready*.
pub(super) const TAG_READY: u16 = 2;

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
    pub(super) control: i32,
    pub(super) active: i32,
    pub(super) passive: i32,
    pub(super) name: String,
}

impl Announcement {
    pub(super) fn to_text(&self) -> String {
        let Self { host, control, active, passive, name } = self;
        format!(
            "{HANDSHAKE_VERSION} host={host} control={control} active={active} passive={passive} \
             name={name}"
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
        let mut number = |key: &str, problem| {
            words
                .next()
                .and_then(|word| word.strip_prefix(key)?.strip_prefix('=')?.parse().ok())
                .ok_or_else(|| malformed(problem))
        };
        let announcement = Self {
            host: number("host", "the first number is not host=")?,
            control: number("control", "the second number is not control=")?,
            active: number("active", "the third number is not active=")?,
            passive: number("passive", "the fourth number is not passive=")?,
            name: name.into(),
        };
        match words.next() {
            None => Ok(announcement),
            Some(_) => Err(malformed("there are more than four numbers")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_announcement_reads_as_it_was_written() {
        let text = "1 host=7 control=8 active=9 passive=10 name=none bot name=x";
        let announcement = Announcement::parse(text).unwrap();
        assert_eq!((announcement.host, announcement.passive), (7, 10));
        assert_eq!(announcement.name, "none bot name=x");
        assert_eq!(announcement.to_text(), text);
    }

    #[test]
    fn anything_else_is_an_error_that_says_what() {
        let whole = "1 host=7 control=8 active=9 passive=10 name=nonebot";
        for end in 0..whole.len() - "onebot".len() {
            assert!(Announcement::parse(&whole[..end]).is_err(), "{:?}", &whole[..end]);
        }
        let found = |text| Announcement::parse(text).unwrap_err();
        assert!(matches!(found("2 host=7"), ConnectError::Version { expected: 1, .. }));
        for text in [
            "1 host=x control=8 active=9 passive=10 name=n",
            "1 host=7 control=8 passive=9 active=10 name=n",
            "1 host=7 control=8 active=9 passive=10 more=11 name=n",
            "1 host=7 control=8 active=9 passive=10 name=a/b",
            "1 host=7 control=8 active=9 passive=99999999999 name=n",
        ] {
            assert!(matches!(found(text), ConnectError::Malformed { .. }), "{text}");
        }
    }
}
