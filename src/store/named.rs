//! Stores with a name: who creates, who opens, who is the first.
//!
//! Unrelated processes meet here, one after the other or at once. What always holds: a process gets a
//! store that the name means at that moment, and shares its users' lock from then on; one that has keys in it
//! is neither replaced nor, unless it was asked for by name, removed.
//!
//! | `how` | nothing there | nobody has it | somebody has it |
//! |---|---|---|---|
//! | `Create` | creates | replaces it; `NotEmpty` where there are keys | `AlreadyExists` |
//! | `Open` | `NotFound` | brings it in order | joins |
//! | `OpenOrCreate` | creates | brings it in order | joins |

use super::header::StoreHeader;
use super::segment::{NOT_TRUSTED, StoreSegment, TRUSTED, fill};
use super::{StoreOptions, usage};
use crate::error::{NameError, SegmentError};
use crate::layout::store::journal::HEAD;
use crate::layout::store::{LIVE_KEYS, usage as line};
use crate::memory::{Deadline, FenceMode, MappedMemory};
use crate::os::names::{self, FileId};
use crate::segment::{self, Access, Address, Claim, Draft, Found, How, Whole, Wish, patience};

/// What is wanted.
#[derive(Debug, Clone, Copy)]
struct Wanted<'a> {
    address: &'a Address,
    options: &'a StoreOptions,
    deadline: Deadline,
}

/// Opens or creates the store at `address`.
pub(super) fn open_segment(
    address: &Address,
    how: How,
    options: &StoreOptions,
) -> Result<StoreSegment, SegmentError> {
    let access = trusted(address, &options.access)?;
    let wish = Wanted { address, options, deadline: patience() };
    segment::open(address, &access, how, wish.deadline, &wish)
}

/// The access that was asked for, if it keeps everybody else out.
fn trusted(address: &Address, access: &Access) -> Result<Access, SegmentError> {
    let not_ours = |found: String, expected: &str| {
        let address = address.to_string();
        Err(NameError::NotOurs { address, found, expected: expected.into() }.into())
    };
    if access.mode & NOT_TRUSTED != 0 {
        // Who may open it may lock what its users lock, and keep them from being proven dead.
        let expected = "a mode without bits for group and others, as 0o600: another user who may open a store can lock it; hand out a read-only descriptor of a store without a name instead";
        return not_ours(format!("mode {:#o}", access.mode), expected);
    }
    if let Some(owner) = access.owner.filter(|owner| *owner != names::effective_user()) {
        return not_ours(format!("to belong to user {owner}"), "to this process's own");
    }
    Ok(Access { mode: access.mode & TRUSTED.mode, owner: None })
}

impl Wanted<'_> {
    fn draft(&self) -> Result<Option<Draft<StoreHeader>>, SegmentError> {
        let header = self.options.header()?;
        let fill = |memory: &MappedMemory, header: &StoreHeader, id: FileId| {
            fill(memory, header, self.options, &header.to_header(), id.words())
        };
        Draft::create(self.address, &self.options.access, &header, Claim::share, fill)
    }
}

impl Wish for Wanted<'_> {
    type Segment = StoreSegment;

    fn create(&self) -> Result<Option<StoreSegment>, SegmentError> {
        let Some(draft) = self.draft()? else { return Ok(None) };
        Ok(draft.publish()?.map(StoreSegment::of_named))
    }

    fn replace(&self, found: &Found) -> Result<Option<StoreSegment>, SegmentError> {
        let address = || self.address.to_string();
        // The gate need not be held while the new one is made.
        let Some(gate) = found.gate(self.deadline)? else { return Ok(None) };
        if gate.taken()?[0] {
            return Err(in_use(self.address, found));
        }
        drop(gate);
        let refuse_keys = || match keys(found)? {
            0 => Ok(()),
            keys => Err(SegmentError::from(NameError::NotEmpty { address: address(), keys })),
        };
        refuse_keys()?;
        let Some(draft) = self.draft()? else { return Ok(None) };
        let still = || refuse_keys().map(|()| true);
        let whole: Option<Whole<_>> = found.supersede(draft, self.deadline, still)?;
        Ok(whole.map(StoreSegment::of_named))
    }

    fn take(&self, found: Found) -> Result<Option<StoreSegment>, SegmentError> {
        let header: StoreHeader = found.geometry()?;
        self.options.refuse_less(self.address, &header.geometry)?;
        let Some(memory) = found.map(FenceMode::Real)? else { return Ok(None) };
        let Some(gate) = found.gate(self.deadline)? else { return Ok(None) };
        if gate.take_both()? {
            let (file, was_closed) = (found.id().words(), usage::was_closed(&found));
            usage::begin(&memory, &header, file, was_closed, || found.sync())?;
        } else {
            usage::check_namespace(&memory)?;
        }
        if !gate.share()? {
            // Nobody who follows the protocol can be alone with it while the gate is ours.
            return Ok(None);
        }
        drop(gate);
        Ok(Some(StoreSegment::of_named(found.into_whole(memory, header))))
    }
}

/// The error where somebody has a store.
pub(super) fn in_use(address: &Address, found: &Found) -> SegmentError {
    let (address, pid) = (address.to_string(), found.u32_at(line::PID));
    NameError::AlreadyExists { address, pid }.into()
}

/// How many keys are lost with what was found; at least one where that cannot be told, because something is unfinished,
/// or the machine has gone down and the count may be older than the table. A file that is no store
/// is an error, unless it can be lost without harm.
pub(super) fn keys(found: &Found) -> Result<u64, SegmentError> {
    match found.geometry::<StoreHeader>() {
        Ok(_) if found.u64_at(HEAD) == 0 && usage::is_all_there(found) => {
            Ok(found.u64_at(LIVE_KEYS))
        }
        Ok(_) => Ok(found.u64_at(LIVE_KEYS).max(1)),
        // Nothing that anybody made whole.
        Err(_) if found.is_name() && !found.has_magic() => Ok(0),
        Err(_) if found.is_blank()? => Ok(0),
        Err(error) => Err(error),
    }
}
