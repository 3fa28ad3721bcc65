//! Where and by whom a store is in use; what its first user finds and its last one leaves.
//!
//! The openers of named stores call it under the gate; a store without a name only says whose it is.
//! Invariants: nothing is made anew while anybody holds a claim on the store; a store that is not proven to be the one
//! that was closed is looked at as a whole, while nobody else has it and before anybody reads it.
//!
//! # What the first user finds
//!
//! | marked clean, and the very file that was closed | then |
//! |---|---|
//! | yes | nothing is unfinished: lock, participants and readers are made anew |
//! | no | also: the indexes are computed anew, and every block's checksum is compared |
//!
//! Versions go on a step higher either way. No boot id is compared: two processes of one machine may see
//! different ones, and a copy that was made while the store was in use has the right one.

use super::header::StoreHeader;
use super::{Core, StoreGeometry, prefixes, shared};
use crate::error::SegmentError;
use crate::identity::{closed, process};
use crate::layout::store::journal::HEAD;
use crate::layout::store::usage::{CLEAN, CLOSING, FILE, PID, PID_NAMESPACE};
use crate::layout::store::{NEXT_VERSION, participant, private, reader};
use crate::memory::{MappedMemory, Memory, Ordering};
use crate::os::{boot, os};
use crate::segment::{Found, Whole, patience};

/// How far versions go on where some that were given out may be lost: fewer than so many were given out since the
/// next version was last brought to where it lasts.
///
/// Versions end at 2^63 ([`MAX_VERSION`](super::survey::MAX_VERSION)). That allows 2^23 opens of this kind.
const LOST_STEP: u64 = 1 << 40;
/// The same after a proven close: none is lost. That allows 2^39 opens.
const CLOSED_STEP: u64 = 1 << 24;

/// Says whose lock and readers these are from now on.
pub(super) fn claim(memory: &MappedMemory, file: [u64; 3]) {
    memory.store_u64(PID_NAMESPACE, boot::pid_namespace(), Ordering::Release);
    memory.store_u32(PID, std::process::id(), Ordering::Release);
    for (offset, value) in FILE.into_iter().zip(file) {
        memory.store_u64(offset, value, Ordering::Release);
    }
}

/// Refuses a store whose lock belongs to processes of another pid namespace: there, other numbers name
/// other threads, and who died could not be told. An unknown namespace is another one.
pub(super) fn check_namespace(memory: &MappedMemory) -> Result<(), SegmentError> {
    let found = memory.load_u64(PID_NAMESPACE, Ordering::Relaxed);
    let expected = boot::pid_namespace();
    if process::same_namespace(found, expected) {
        return Ok(());
    }
    Err(SegmentError::PidNamespace { found, expected })
}

/// Brings a store in order that this process has for itself, under the gate. `sync` gets what was stored to
/// where it outlives the machine's uptime. Can be killed, and done again by the next one.
pub(super) fn begin(
    memory: &MappedMemory,
    header: &StoreHeader,
    file: [u64; 3],
    was_closed: bool,
    mut sync: impl FnMut() -> Result<(), SegmentError>,
) -> Result<(), SegmentError> {
    let geometry = &header.geometry;
    if memory.load_u32(CLEAN, Ordering::Relaxed) != 0 {
        memory.store_u32(CLEAN, 0, Ordering::Release);
        // Before anything else is changed, lest the mark be believed when the machine goes down.
        sync()?;
    }
    shared::make_lock(memory, geometry).map_err(os("pthread_mutex_init"))?;
    forget_participants(memory, geometry);
    // Versions that were given out may be lost, and must not be given out again.
    let next = memory.load_u64(NEXT_VERSION, Ordering::Relaxed);
    let step = if was_closed { CLOSED_STEP } else { LOST_STEP };
    memory.store_u64(NEXT_VERSION, next.saturating_add(step), Ordering::Release);
    if !was_closed {
        let mut core = Core::new(memory.clone(), *geometry);
        let damaged = |_| SegmentError::Damaged { what: "its table names what is no value" };
        core.rebuild().map_err(damaged)?;
        core.check().map_err(|what| SegmentError::Damaged { what })?;
    }
    // Before a new version is given out, lest the machine go down again, and the next one give out the same.
    sync()?;
    claim(memory, file);
    Ok(())
}

/// Whether this is the very file that its last user closed, with nothing unfinished. For whoever has it alone.
pub(super) fn was_closed(found: &Found) -> bool {
    let (number, recorded) = (found.u32_at(CLOSING), FILE.map(|word| found.u64_at(word)));
    found.u32_at(CLEAN) == 1
        && (found.times().into_iter())
            .any(|times| closed::is_closed(found.id(), times, recorded, number))
}

/// Whether nothing that was stored in a file that nobody has can have been lost. Shared memory does not outlive
/// the machine's uptime.
pub(super) fn is_all_there(found: &Found) -> bool {
    found.is_name() || was_closed(found)
}

/// Frees all records of participants and readers, and all watched prefixes: nobody is there who could have one.
fn forget_participants(memory: &MappedMemory, geometry: &StoreGeometry) {
    prefixes::forget(memory, geometry);
    let participants = geometry.private() + private::PARTICIPANTS;
    for (start, bytes) in [(participants, participant::BYTES), (geometry.reader(0), reader::BYTES)]
    {
        for word in (start..start + bytes * geometry.readers()).step_by(8) {
            memory.store_u64(word, 0, Ordering::Relaxed);
        }
    }
}

/// Gives a store back; the last one who does leaves it marked clean, if nothing is unfinished.
pub(super) fn close(segment: &Whole<StoreHeader>) {
    let claim = segment.claim();
    // Where somebody stopped keeps the gate, the next one to open it has more to look at.
    if claim.enter(patience()).unwrap_or(false) {
        let memory = segment.memory();
        let in_order = || memory.load_u64(HEAD, Ordering::Acquire) == 0;
        if claim.take_both().unwrap_or(false)
            && in_order()
            && let Ok(number) = closed::draw()
        {
            memory.store_u32(CLOSING, number, Ordering::Release);
            // In this order, so that the mark is true of what is on the disk.
            if segment.sync().is_ok() {
                memory.store_u32(CLEAN, 1, Ordering::Release);
                // The time comes last: a store moves it when it gets to the file. Lost, it costs a look.
                if segment.sync().is_ok() {
                    let _ = closed::stamp(claim.file(), number);
                }
            }
        }
    }
    segment.release();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::store::ROOT;
    use crate::segment::Address;
    use crate::store::{Store, StoreOptions, StoreSegment};

    /// Begins with a store that was in use; what had the next version and the mark when it was
    /// given to the disk.
    fn begun(clean: u32) -> (Vec<(u64, u32)>, u64) {
        let options = StoreOptions { capacity_bytes: 1 << 20, ..StoreOptions::default() };
        let segment = StoreSegment::anonymous(&options).unwrap();
        let memory = segment.memory();
        let header =
            StoreHeader { geometry: *segment.geometry(), incarnation: segment.incarnation() };
        assert_ne!(memory.load_u64(ROOT, Ordering::Relaxed), 0);
        memory.store_u32(CLEAN, clean, Ordering::Relaxed);
        let next = || memory.load_u64(NEXT_VERSION, Ordering::Relaxed);
        let mut synced = Vec::new();
        let sync = || {
            synced.push((next(), memory.load_u32(CLEAN, Ordering::Relaxed)));
            Ok(())
        };
        begin(memory, &header, [1, 2, 3], clean == 1, sync).unwrap();
        (synced, next())
    }

    #[test]
    fn f04_the_step_is_on_the_disk_before_a_version_is_given_out() {
        let (synced, next) = begun(0);
        assert_eq!((synced, next), (vec![(1 + LOST_STEP, 0)], 1 + LOST_STEP));
        // And where nothing was lost, first that it is in use.
        assert_eq!(begun(1), (vec![(1, 0), (1 + CLOSED_STEP, 0)], 1 + CLOSED_STEP));
    }

    #[test]
    fn f47_versions_last_for_two_to_the_31_opens_after_a_close() {
        use crate::store::survey::MAX_VERSION;
        const { assert!(MAX_VERSION / CLOSED_STEP >= 1 << 31) };
        // Beside them, a machine may go down two to the 22 times.
        const { assert!((MAX_VERSION - (CLOSED_STEP << 31)) / LOST_STEP >= 1 << 22) };
    }

    #[test]
    fn f51_what_was_closed_is_believed_until_anybody_writes_to_it() {
        use std::os::unix::fs::FileExt;
        let unique = format!("usage-f51-{}", std::process::id());
        let path = std::env::temp_dir().join(format!("ringway-{unique}"));
        let options = StoreOptions { capacity_bytes: 1 << 20, ..StoreOptions::default() };
        for address in [Address::from(&*unique), Address::from(&*path)] {
            let was_closed = || was_closed(&Found::open(&address, &options.access).unwrap());
            let store = Store::create(&address, &options).unwrap();
            store.set("k", &[7; 1000]).unwrap();
            assert!(!was_closed(), "in use");
            drop(store);
            let path = address.path().unwrap();
            let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
            if crate::os::names::FileId::of(&file).unwrap().words()[2] == 0 {
                println!("skipped: {address} has no time of birth");
                continue;
            }
            assert!(was_closed() && was_closed(), "a look changes nothing");
            drop(Store::open(&address, &options).unwrap());
            assert!(was_closed(), "closed once more");
            let mut byte = [0];
            file.read_exact_at(&mut byte, 5000).unwrap();
            file.write_all_at(&byte, 5000).unwrap();
            assert!(!was_closed(), "somebody has written to it");
            crate::store::remove(&address).unwrap();
        }
    }
}
