use std::io;

use thiserror::Error;

/// Why a named or file-backed segment could not be created, opened or removed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NameError {
    /// A name that no segment can have.
    #[error(
        "name {name:?} {problem}: a name has 1 to {max} bytes, no slash, no control characters, and does not begin with a dot"
    )]
    Invalid {
        /// What was asked for.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
        /// Longest possible, in bytes.
        max: usize,
    },
    /// Nothing has this name.
    #[error(
        "{address}: there is no such segment; create it first, or wait for its creator with open_timeout"
    )]
    NotFound {
        /// Where it was looked for.
        address: String,
    },
    /// Somebody alive holds a side of the segment that has this name.
    #[error(
        "{address}: cannot be created anew while a process uses it, perhaps {pid} (0: unknown); open it instead, or end that process"
    )]
    AlreadyExists {
        /// What was to be created.
        address: String,
        /// Who seems to hold it, in its own pid namespace; a hint. 0 = unknown.
        pid: u32,
    },
    /// Somebody alive has taken this side.
    #[error(
        "{address}: side {side} is taken, perhaps by process {pid} (0: unknown); a channel has two sides, each for one process: wait with open_timeout, or use a channel of its own"
    )]
    AlreadyClaimed {
        /// What was to be opened.
        address: String,
        /// Which side: 0 = first, 1 = second.
        side: usize,
        /// Who seems to hold it, in its own pid namespace; a hint. 0 = unknown.
        pid: u32,
    },
    /// Somebody is attaching to the segment, or replacing it, and does not get on with it.
    #[error(
        "{address}: another process has been opening or replacing it for 2 s, and may be stopped; try again, or continue or end that process"
    )]
    Busy {
        /// What was to be opened.
        address: String,
    },
    /// What has this name is no whole segment.
    #[error("{address}: is {found}, not a whole segment; create it anew, or remove it")]
    Stale {
        /// What was to be opened.
        address: String,
        /// What is there instead.
        found: &'static str,
    },
    /// What has this name belongs to somebody else, lets others in, or is no regular file.
    #[error(
        "{address}: found {found}, expected {expected}; use another name, or change the file's owner or mode or the `access` option"
    )]
    NotOurs {
        /// What was to be opened.
        address: String,
        /// What is there.
        found: String,
        /// What would be right.
        expected: String,
    },
    /// No segment of this length can be made in its directory.
    #[error(
        "{address}: cannot create a segment of {needed_bytes} bytes in {directory}{}: {source}; use a path in another directory, or an anonymous segment",
        free_bytes.map(|free| format!(" ({free} bytes are free)")).unwrap_or_default()
    )]
    CannotCreate {
        /// What was to be created.
        address: String,
        /// Where its file was to lie.
        directory: String,
        /// Length of the segment.
        needed_bytes: u64,
        /// How much room there was; `None` where there is no such directory.
        free_bytes: Option<u64>,
        /// What the system said.
        source: io::Error,
    },
    /// A directory cannot be read.
    #[error(
        "{directory}: the directory cannot be read: {source}; mount or create it, or use paths or anonymous segments"
    )]
    Directory {
        /// Which one.
        directory: String,
        /// What the system said.
        source: io::Error,
    },
    /// The system does not allow it.
    #[error(
        "{address}: this process may not open, link or remove it: {source}; check the file's owner and mode, and those of its directory"
    )]
    Denied {
        /// What was to be opened or removed.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// Both sides are free and there are messages to be read, so that it matters which side is
    /// taken: a process must not receive its own messages.
    #[error(
        "{address}: {to_second} messages to the second side and {to_first} to the first are unread, and nobody has a side; say in `side` which one to take, or create it anew"
    )]
    Unread {
        /// What was to be opened.
        address: String,
        /// Messages that wait for the second side.
        to_second: u64,
        /// Messages that wait for the first side.
        to_first: u64,
    },
    /// What has this name has less of something than was asked for.
    #[error(
        "{address}: {what} is {found}, asked for at least {asked}; ask for less (`least()` asks for nothing), or create it anew"
    )]
    Differs {
        /// What was to be opened.
        address: String,
        /// What there is less of.
        what: &'static str,
        /// How much was asked for.
        asked: u64,
        /// How much there is.
        found: u64,
    },
    /// A store with something in it, which is not replaced by a new one.
    #[error(
        "{address}: a store with {keys} keys is not replaced by an empty one; open it, or remove it first"
    )]
    NotEmpty {
        /// What was to be created.
        address: String,
        /// How many keys it has, as far as can be told without opening it.
        keys: u64,
    },
    /// A file that was in use when the machine went down: what it holds is anybody's guess.
    #[error(
        "{address}: was in use when the machine went down, so its messages may be damaged; create it anew"
    )]
    Unclean {
        /// What was to be opened.
        address: String,
    },
}
