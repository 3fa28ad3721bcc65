//! The store: a hash table in a segment of its own, changed under a lock, read without one.
//!
//! Processes get a [`Store`]; behind it stands a core over the [`Memory`] seam: what a writer does under the
//! lock, what readers do without it, what recovery does after a death.
//! What always holds: the table and what it names are the truth, and one store of one slot changes a key; all
//! else is an index, which recovery can take back, finish, or compute anew.
//!
//! ```
//! use ringway::store::{Store, StoreOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = Store::anonymous(&StoreOptions { capacity_bytes: 1 << 20, ..Default::default() })?;
//! store.set("motd", b"hello")?;
//! let motd = store.get("motd")?.expect("just set"); // in the segment itself
//! store.set("motd", b"good-bye")?; // beside the reader, who keeps what it has
//! assert_eq!(&*motd, b"hello");
//!
//! store.fetch_add("visits", 1)?;
//! store.set_archived("peers", &vec![String::from("alpha")])?;
//! assert_eq!(store.get_archived::<Vec<String>>("peers")?.expect("just set")[0].as_str(), "alpha");
//! # Ok(())
//! # }
//! ```
//!
//! | file | what it holds |
//! |---|---|
//! | `geometry` | where everything lies in a store of this size |
//! | `header`, `options`, `segment` | what a store's segment says about itself; creating and attaching it |
//! | `descriptors` | the two memory files of a store without a name |
//! | `named`, `usage`, `directory` | stores with a name: who is the first, what he finds; what there is |
//! | `classes`, `spans`, `arena` | lengths of objects, runs of pages, objects |
//! | `block`, `table` | a key with its value; from a key to its block |
//! | `root` | which table is current, and what two equal looks at it prove |
//! | `journal` | what an operation has done so far |
//! | `limbo` | blocks that readers may still look at |
//! | `lock`, `local_lock` | the lock of writers, and recovery before anything else; one for tests |
//! | `core`, `clear` | set, delete: under the lock |
//! | `grow`, `next_table` | when the table is replaced; the one that is built for that |
//! | `cut`, `iterate` | several keys as they were at one moment; all keys, beside writers |
//! | `batch`, `pending` | several keys at once; what their slots say meanwhile |
//! | `reader`, `pinned`, `owner` | get: without it; what it finds; whose a reader is, and taking back what the dead had |
//! | `handle`, `operations`, `many`, `typed`, `stats` | what users call |
//! | `value`, `error` | what they get |
//! | `writable`, `shared` | a handle that may write; what the handles of a process have in common |
//! | `doorbells`, `rung` | telling watchers that something has changed; what an operation has rung, and whom to wake |
//! | `change_log`, `prefixes` | which keys have changed; which prefixes are watched |
//! | `watch`, `watch_in_place`, `interest`, `interest_prefix`, `interests` | waiting for it; where it is looked up; for changes of a key, of a prefix, of many things |
//! | `watching`, `bed` | watches, as users have them; where they sleep |
//! | `reacting` | callbacks at changes |
//! | `read_only` | a handle that only reads |
//! | `remote`, `round_trips` | writing through somebody who may; changes that depend on what is there, so |
//! | `copying` | get, iterate, for who has the store read-only |
//! | `compact`, `window`, `slide` | moving blocks, so that what is free lies together |
//! | `reserve` | room for changes that need no more than they free |
//! | `survey`, `recovery` | what the truth says; making the indexes say so |
//!
//! The core by itself, over memory of this process:
//!
//! ```
//! use ringway::memory::HeapMemory;
//! use ringway::store::{Core, Owner, Reader, StoreGeometry};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let geometry = StoreGeometry::new(1 << 20, 8, 0x5eed).expect("measures that a store can have");
//! let memory = HeapMemory::new(geometry.len_bytes());
//! let mut core = Core::new(memory.clone(), geometry);
//! core.format()?;
//! core.set(b"motd", b"hello")?;
//!
//! let reader = Reader::claim(memory, geometry, Owner::new(1, 1)).expect("a free record");
//! let motd = reader.get(b"motd")?.expect("just set");
//! core.set(b"motd", b"good-bye")?; // beside the reader, who keeps what it has
//! assert_eq!(motd.to_vec(), b"hello");
//! assert_eq!(reader.get(b"motd")?.expect("set again").to_vec(), b"good-bye");
//! # Ok(())
//! # }
//! ```

#[cfg(doc)]
use crate::memory::Memory;

mod arena;
mod batch;
#[cfg(test)]
mod batch_tests;
#[cfg(not(loom))]
mod bed;
#[cfg(all(test, not(loom)))]
mod between;
mod block;
mod change_log;
mod classes;
mod clear;
mod compact;
#[cfg(all(test, not(loom)))]
mod compact_tests;
mod copying;
mod core;
mod cut;
#[cfg(all(test, not(loom)))]
mod cut_tests;
#[cfg(all(test, not(loom)))]
mod damage_tests;
#[cfg(not(loom))]
mod descriptors;
#[cfg(not(loom))]
mod directory;
mod doorbells;
mod error;
#[cfg(all(test, not(loom)))]
mod futex_tests;
mod geometry;
mod grow;
#[cfg(not(loom))]
mod handle;
#[cfg(not(loom))]
mod header;
mod interest;
mod interest_prefix;
mod interests;
#[cfg(all(test, not(loom)))]
mod interests_tests;
mod iterate;
mod journal;
mod limbo;
mod local_lock;
mod lock;
#[cfg(not(loom))]
mod many;
#[cfg(loom)]
pub mod model;
#[cfg(not(loom))]
mod named;
mod next_table;
#[cfg(all(test, not(loom)))]
mod next_table_tests;
#[cfg(not(loom))]
mod open;
#[cfg(all(test, not(loom)))]
mod operation_tests;
#[cfg(not(loom))]
mod operations;
#[cfg(not(loom))]
mod options;
mod owner;
mod pending;
mod pinned;
mod prefixes;
#[cfg(all(test, not(loom)))]
mod prefixes_tests;
#[cfg(not(loom))]
mod reacting;
#[cfg(not(loom))]
mod read_only;
mod reader;
#[cfg(all(test, not(loom)))]
mod reader_tests;
#[cfg(all(test, not(loom)))]
mod rebuild_tests;
mod recovery;
#[cfg(not(loom))]
mod remote;
mod reserve;
#[cfg(all(test, not(loom)))]
mod reserve_tests;
mod root;
#[cfg(all(test, not(loom)))]
mod root_tests;
#[cfg(not(loom))]
mod round_trips;
mod rung;
#[cfg(not(loom))]
mod segment;
#[cfg(not(loom))]
mod shared;
mod slide;
mod spans;
#[cfg(not(loom))]
mod stats;
mod survey;
mod table;
#[cfg(all(test, not(loom)))]
mod tests;
#[cfg(not(loom))]
mod typed;
#[cfg(not(loom))]
mod usage;
#[cfg(not(loom))]
mod value;
mod watch;
mod watch_in_place;
#[cfg(all(test, not(loom)))]
mod watch_tests;
#[cfg(not(loom))]
mod watching;
mod window;
#[cfg(not(loom))]
mod writable;

pub use self::core::{Core, Refusal};
pub use batch::Change as BatchChange;
pub use copying::{Copied, CopyRefusal, CopyingIter, CopyingReader};
pub use cut::{Read, ReadCopy};
#[cfg(not(loom))]
pub use descriptors::StoreDescriptors;
#[cfg(not(loom))]
pub use directory::{Listed, gc, gc_where, list, remove};
pub use error::{
    AddError, CheckError, CompareError, HandleError, QuotaError, ReadError, RemoteError,
    TypedError, WriteError,
};
pub use geometry::StoreGeometry;
#[cfg(not(loom))]
pub use handle::{Store, StoreAccess};
#[cfg(not(loom))]
pub use header::StoreHeader;
pub use interests::WatchId;
pub use iterate::Entries;
pub use local_lock::LocalLock;
pub use lock::{AcquireError, Acquired, Lock, LockRefusal, Recovery, Writer};
#[cfg(not(loom))]
pub use many::{Batch, Entry, Iter};
#[cfg(not(loom))]
pub use open::OpenError;
#[cfg(not(loom))]
pub use options::{StoreOptions, Verify};
pub use owner::Owner;
pub use pinned::Pinned;
#[cfg(not(loom))]
pub use reacting::{
    Reacting, Reaction, ReactionDispatcher, ReactionError, ReactionReport, ReactionStats,
    ReactionStopError,
};
pub use reader::{ReadRefusal, Reader};
pub use recovery::Recovered;
#[cfg(not(loom))]
pub use remote::StoreQuota;
#[cfg(not(loom))]
pub(crate) use remote::{Ledger, Remote, Request, Watched, serve};
#[cfg(not(loom))]
pub use segment::StoreSegment;
#[cfg(not(loom))]
pub use stats::StoreStats;
#[cfg(not(loom))]
pub use typed::Typed;
#[cfg(not(loom))]
pub use value::Value;
pub use watch::Change;
#[cfg(not(loom))]
pub use watching::{Watch, WatchError, WatchInterrupter, Watches};
