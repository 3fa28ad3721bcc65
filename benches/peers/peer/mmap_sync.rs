//! mmap-sync: one value in two files that take turns; a writer waits until nobody reads the older one.
//!
//! Rows: read in place and copied out. Whatever the key, it is the one value.
//! What always holds: its files lie under this measurement's own name; values are arrays of numbers,
//! which its serializer writes as they are.

use std::ffi::OsString;
use std::fmt;
use std::os::fd::OwnedFd;
use std::time::Duration;

use mmap_sync::locks::LockDisabled;
use mmap_sync::synchronizer::Synchronizer;
use wyhash::WyHash;

use crate::common::case::{Case, Setting};
use crate::common::cli::ChildArgs;
use crate::common::isolated::{far_name, near_name};
use crate::common::keyed::{Keyed, Load, Work, measure_processes, serve_process, stamp_of};
use crate::common::link::Outcome;

/// Values up to this size; longer ones do not fit on the stack, through which they go.
pub const MOST_BYTES: usize = 64 << 10;
/// How long a writer waits for readers: nobody dies here.
const GRACE: Duration = Duration::from_secs(5);
/// How long it sleeps between two looks at them, in nanoseconds. Its default is a second.
const SLEEP_NS: u64 = 1000;

type Value<const WORDS: usize> = [u64; WORDS];

/// One side. `COPIED`: the value is copied out before it is looked at.
pub struct OneValue<const WORDS: usize, const COPIED: bool> {
    synchronizer: Synchronizer<WyHash, LockDisabled, 1024, SLEEP_NS>,
    out: Value<WORDS>,
    inbox: Value<WORDS>,
}

impl<const WORDS: usize, const COPIED: bool> fmt::Debug for OneValue<WORDS, COPIED> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OneValue").field("words", &WORDS).finish_non_exhaustive()
    }
}

impl<const WORDS: usize, const COPIED: bool> OneValue<WORDS, COPIED> {
    fn over(name: &str) -> Self {
        let prefix = OsString::from(format!("/dev/shm/{name}mmap-sync"));
        let synchronizer = Synchronizer::with_params(&prefix);
        Self { synchronizer, out: [0xa5a5; WORDS], inbox: [0; WORDS] }
    }
}

/// The stamp, which is that of key 0 whatever is asked for.
fn with_key(stamp: u64, key: u64) -> u64 {
    stamp & !0xffff_ffff | key
}

impl<const WORDS: usize, const COPIED: bool> Keyed for OneValue<WORDS, COPIED> {
    fn create(_load: &Load) -> (Self, Vec<OwnedFd>) {
        let mut side = Self::over(&near_name());
        side.set(0, stamp_of(0, 1));
        (side, Vec::new())
    }

    fn attach(_load: &Load, _fds: Vec<OwnedFd>) -> Self {
        Self::over(&far_name())
    }

    #[inline]
    fn get(&mut self, key: u64) -> u64 {
        // SAFETY: the files hold what `write` has written, arrays of this length; the value is dropped
        // at the end of this call, long before the writers' grace is over.
        let value = unsafe { self.synchronizer.read::<Value<WORDS>>(false) }.expect("a value");
        let value: &Value<WORDS> = if COPIED {
            self.inbox.copy_from_slice(&*value);
            &self.inbox
        } else {
            &value
        };
        assert_eq!(value[0], value[WORDS - 1], "a torn value");
        with_key(value[0], key)
    }

    #[inline]
    fn set(&mut self, _key: u64, stamp: u64) {
        self.out[0] = with_key(stamp, 0);
        self.out[WORDS - 1] = with_key(stamp, 0);
        self.synchronizer.write(&self.out, GRACE).expect("writing");
    }
}

/// What can be done to values of all sizes.
pub trait WorkOfAll<const COPIED: bool>:
    Work<OneValue<1, COPIED>>
    + Work<OneValue<8, COPIED>>
    + Work<OneValue<512, COPIED>>
    + Work<OneValue<8192, COPIED>>
{
}

impl<const COPIED: bool, W> WorkOfAll<COPIED> for W where
    W: Work<OneValue<1, COPIED>>
        + Work<OneValue<8, COPIED>>
        + Work<OneValue<512, COPIED>>
        + Work<OneValue<8192, COPIED>>
{
}

/// A row; the size of the value decides about the type.
pub const fn case<W: WorkOfAll<COPIED>, const COPIED: bool>(name: &'static str) -> Case {
    Case::processes_by(name, measure::<W, COPIED>, serve::<W, COPIED>).up_to(MOST_BYTES)
}

fn measure<W: WorkOfAll<COPIED>, const COPIED: bool>(case: &Case, setting: &Setting) -> Outcome {
    match setting.spec.size {
        8 => measure_processes::<OneValue<1, COPIED>, W>(case, setting),
        64 => measure_processes::<OneValue<8, COPIED>, W>(case, setting),
        4096 => measure_processes::<OneValue<512, COPIED>, W>(case, setting),
        65536 => measure_processes::<OneValue<8192, COPIED>, W>(case, setting),
        other => panic!("no type for values of {other} bytes"),
    }
}

fn serve<W: WorkOfAll<COPIED>, const COPIED: bool>(args: &ChildArgs) {
    match args.spec.size {
        8 => serve_process::<OneValue<1, COPIED>, W>(args),
        64 => serve_process::<OneValue<8, COPIED>, W>(args),
        4096 => serve_process::<OneValue<512, COPIED>, W>(args),
        65536 => serve_process::<OneValue<8192, COPIED>, W>(args),
        other => panic!("no type for values of {other} bytes"),
    }
}
