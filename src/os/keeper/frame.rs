//! What a host asks its keeper to start: one memory file.
//!
//! The host writes it, the keeper maps it privately, and the keeper's child reads it. Invariants: a frame
//! has at most [`MAX_BYTES`] bytes and ends with a NUL, so every string in it ends; each array of pointers
//! lies inside it; nobody writes it after it was sent.
//!
//! # Layout
//!
//! Words of 64 bits, then strings. Offsets count bytes from the start.
//!
//! ```text
//! word 0         flags
//!      1, 2      user and group id
//!      3, 4, 5   policy, priority, nice value (signed)
//!      6         offset of the directory
//!      7 .. 11   numbers of limits, words of the affinity, programs, arguments, variables
//!     12         limits: number and value of each
//!      …         affinity
//!      …         offsets of the programs; of the arguments and a 0; of the variables and a 0
//!      …         strings, each with a NUL; one more NUL
//! ```

use std::borrow::Cow;
use std::ffi::{CStr, CString, c_char};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::null_mut;

use super::super::child::{Image, Setup, Strings};
use super::super::isolation::Isolation;
use super::super::memfd;
use super::super::scheduling::Scheduling;

/// The most that the kernel takes as arguments and environment is 6 MiB.
pub(super) const MAX_BYTES: usize = 8 << 20;

const FIXED: usize = 12;
const FLAGS: usize = 0;
const USER: usize = 1;
const GROUP: usize = 2;
const POLICY: usize = 3;
const PRIORITY: usize = 4;
const NICE: usize = 5;
const DIRECTORY: usize = 6;
const LIMITS: usize = 7;
const AFFINITY: usize = 8;
const PROGRAMS: usize = 9;
const ARGUMENTS: usize = 10;
const ENVIRONMENT: usize = 11;

const SESSION: u64 = 1;
const KEYRING: u64 = 1 << 1;
const NO_NEW_PRIVS: u64 = 1 << 2;
const SWITCHES_USER: u64 = 1 << 3;
const HAS_POLICY: u64 = 1 << 4;
const HAS_NICE: u64 = 1 << 5;
const HAS_AFFINITY: u64 = 1 << 6;

/// Writes a frame.
///
/// # Errors
/// `E2BIG` where it would be too long; the system's error where there is no room for it.
pub(super) fn write(setup: &Setup<'_>, image: &Image) -> io::Result<(File, u32)> {
    let bytes = to_bytes(setup, image);
    if bytes.len() > MAX_BYTES {
        return Err(io::Error::from_raw_os_error(libc::E2BIG));
    }
    let mut file = memfd::create_for(bytes.len() as u64)?;
    file.write_all(&bytes)?;
    Ok((file, bytes.len() as u32))
}

fn to_bytes(setup: &Setup<'_>, image: &Image) -> Vec<u8> {
    let Setup { directory, session, scheduling, isolation, keyring } = setup;
    let flag = |set: bool, flag: u64| if set { flag } else { 0 };
    let mut words = vec![0_u64; FIXED];
    words[FLAGS] = flag(*session, SESSION)
        | flag(*keyring, KEYRING)
        | flag(isolation.no_new_privs, NO_NEW_PRIVS)
        | flag(isolation.user.is_some(), SWITCHES_USER)
        | flag(scheduling.policy.is_some(), HAS_POLICY)
        | flag(scheduling.nice.is_some(), HAS_NICE)
        | flag(scheduling.cpus.is_some(), HAS_AFFINITY);
    let (user, group) = isolation.user.unwrap_or_default();
    (words[USER], words[GROUP]) = (user.into(), group.into());
    let (policy, priority) = scheduling.policy.unwrap_or_default();
    (words[POLICY], words[PRIORITY]) = (policy as u64, priority as u64);
    words[NICE] = scheduling.nice.unwrap_or_default() as u64;
    let cpus = scheduling.cpus.as_deref().unwrap_or_default();
    words[LIMITS] = isolation.limits.len() as u64;
    words[AFFINITY] = cpus.len() as u64;
    let Image { programs, arguments, environment, .. } = image;
    words[PROGRAMS] = programs.len() as u64;
    words[ARGUMENTS] = arguments.len() as u64;
    words[ENVIRONMENT] = environment.len() as u64;
    words.extend(isolation.limits.iter().flatten());
    words.extend(cpus);
    let pointers = programs.len() + arguments.len() + 1 + environment.len() + 1;
    let mut strings = Vec::new();
    let strings_at = (words.len() + pointers) * size_of::<u64>();
    let mut add = |string: &CStr| {
        let at = strings_at + strings.len();
        strings.extend_from_slice(string.to_bytes_with_nul());
        at as u64
    };
    if let Some(directory) = directory {
        words[DIRECTORY] = add(directory);
    }
    words.extend(programs.iter().map(|string| add(string)));
    for strings in [arguments, environment] {
        words.extend(strings.iter().map(|string: &CString| add(string)));
        words.push(0);
    }
    let mut bytes = bytemuck::cast_slice(&words).to_vec();
    bytes.append(&mut strings);
    bytes.push(0);
    bytes
}

/// A frame that the keeper has mapped, with pointers in the place of offsets.
#[derive(Debug)]
pub(super) struct Frame {
    base: *mut libc::c_void,
    bytes: usize,
}

impl Frame {
    /// Maps a frame of this length.
    pub(super) fn map(file: BorrowedFd<'_>, bytes: u32) -> io::Result<Self> {
        let bytes = bytes as usize;
        if !(FIXED * size_of::<u64>()..=MAX_BYTES).contains(&bytes) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice replaces nothing. What is written to
        // it stays in this process.
        let base = unsafe {
            libc::mmap(null_mut(), bytes, protection, libc::MAP_PRIVATE, file.as_raw_fd(), 0)
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mut frame = Self { base, bytes };
        frame.relocate()?;
        Ok(frame)
    }

    fn words(&self) -> &[u64] {
        // SAFETY: mapped by `map` with so many bytes, from the start of a page; the file has them, for the
        // host has written them, and nobody writes it any more.
        unsafe { std::slice::from_raw_parts(self.base.cast(), self.bytes / size_of::<u64>()) }
    }

    /// Where the arrays begin, by words, and where the last one ends.
    fn arrays(&self) -> io::Result<[usize; 6]> {
        let words = self.words();
        let mut at = FIXED;
        let mut arrays = [at; 6];
        let lengths = [
            words[LIMITS].saturating_mul(2),
            words[AFFINITY],
            words[PROGRAMS],
            words[ARGUMENTS].saturating_add(1),
            words[ENVIRONMENT].saturating_add(1),
        ];
        for (index, length) in lengths.into_iter().enumerate() {
            at = at.saturating_add(usize::try_from(length).unwrap_or(usize::MAX));
            arrays[index + 1] = at;
        }
        if at > words.len() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(arrays)
    }

    /// Replaces offsets of strings by their addresses.
    fn relocate(&mut self) -> io::Result<()> {
        let [_, _, first, _, _, end] = self.arrays()?;
        let (base, bytes) = (self.base as u64, self.bytes as u64);
        // SAFETY: see `words`; `self` is borrowed mutably, so there is no other slice of it.
        let words = unsafe {
            std::slice::from_raw_parts_mut(self.base.cast::<u64>(), self.bytes / size_of::<u64>())
        };
        let (fixed, arrays) = words.split_at_mut(FIXED);
        let pointers = arrays[first - FIXED..end - FIXED].iter_mut();
        for word in pointers.chain([&mut fixed[DIRECTORY]]) {
            if *word >= bytes {
                return Err(io::ErrorKind::InvalidData.into());
            }
            if *word != 0 {
                *word += base;
            }
        }
        Ok(())
    }

    /// What the child is to become.
    pub(super) fn setup(&self) -> io::Result<Setup<'_>> {
        let [limits, affinity, programs, ..] = self.arrays()?;
        let words = self.words();
        let has = |flag: u64| words[FLAGS] & flag != 0;
        let directory = words[DIRECTORY] as *const c_char;
        // SAFETY: not null: a string inside the frame, whose last byte is a NUL.
        let directory = (!directory.is_null()).then(|| unsafe { CStr::from_ptr(directory) });
        Ok(Setup {
            directory: directory.map(Cow::Borrowed),
            session: has(SESSION),
            scheduling: Scheduling {
                policy: has(HAS_POLICY).then(|| (words[POLICY] as i32, words[PRIORITY] as i32)),
                nice: has(HAS_NICE).then(|| words[NICE] as i32),
                cpus: has(HAS_AFFINITY).then(|| Cow::Borrowed(&words[affinity..programs])),
            },
            isolation: Isolation {
                limits: Cow::Borrowed(words[limits..affinity].as_chunks().0),
                user: has(SWITCHES_USER).then(|| (words[USER] as u32, words[GROUP] as u32)),
                no_new_privs: has(NO_NEW_PRIVS),
            },
            keyring: has(KEYRING),
        })
    }

    /// The program, its arguments and its environment.
    pub(super) fn strings(&self) -> io::Result<Strings<'_>> {
        let [_, _, programs, arguments, environment, end] = self.arrays()?;
        let pointers = |from: usize, to: usize| {
            let words = &self.words()[from..to];
            // SAFETY: as many words, which hold addresses, and as long a borrow. The two types have the
            // same size and alignment on the supported platforms.
            unsafe {
                std::slice::from_raw_parts(words.as_ptr().cast::<*const c_char>(), words.len())
            }
        };
        Ok(Strings {
            programs: pointers(programs, arguments),
            arguments: pointers(arguments, environment),
            environment: pointers(environment, end),
        })
    }
}

const _: () = assert!(size_of::<u64>() == size_of::<*const c_char>());

impl Drop for Frame {
    fn drop(&mut self) {
        // SAFETY: mapped by `map`, with this length; what borrows from it is gone.
        unsafe { libc::munmap(self.base, self.bytes) };
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    fn image() -> Image {
        Image {
            programs: vec![c"/a/tool".into(), c"/b/tool".into()],
            arguments: vec![c"tool".into(), c"".into(), c"last".into()],
            environment: vec![c"A=1".into()],
            streams: [None, None, None],
            inherited: Vec::new(),
            cgroup: None,
        }
    }

    fn text(pointers: &[*const c_char]) -> Vec<String> {
        // SAFETY: strings of a frame that is alive.
        let text = |pointer| unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned();
        pointers.iter().map(|pointer| text(*pointer)).collect()
    }

    #[test]
    fn a_frame_says_what_was_written() {
        let setup = Setup {
            directory: Some(c"/tmp".into()),
            session: true,
            scheduling: Scheduling {
                policy: Some((libc::SCHED_BATCH, 0)),
                nice: Some(-3),
                cpus: Some(vec![3, 0].into()),
            },
            isolation: Isolation {
                limits: vec![[7, 64], [9, u64::MAX]].into(),
                user: Some((12, 13)),
                no_new_privs: true,
            },
            keyring: false,
        };
        let (file, bytes) = write(&setup, &image()).unwrap();
        let frame = Frame::map(file.as_fd(), bytes).unwrap();
        let found = frame.setup().unwrap();
        assert_eq!(format!("{found:?}"), format!("{setup:?}"));
        let strings = frame.strings().unwrap();
        assert_eq!(text(strings.programs), ["/a/tool", "/b/tool"]);
        let (null, arguments) = strings.arguments.split_last().unwrap();
        assert_eq!(
            (null.is_null(), text(arguments)),
            (true, ["tool", "", "last"].map(String::from).into())
        );
        let (null, environment) = strings.environment.split_last().unwrap();
        assert_eq!((null.is_null(), text(environment)), (true, vec!["A=1".to_owned()]));
    }

    #[test]
    fn a_frame_that_says_nothing_sets_nothing() {
        let (file, bytes) = write(&Setup::default(), &image()).unwrap();
        let frame = Frame::map(file.as_fd(), bytes).unwrap();
        assert_eq!(format!("{:?}", frame.setup().unwrap()), format!("{:?}", Setup::default()));
    }

    #[test]
    fn a_frame_that_is_too_long_is_refused_as_the_kernel_would() {
        let mut image = image();
        image.environment = vec![CString::new(vec![b'x'; MAX_BYTES]).unwrap()];
        let error = write(&Setup::default(), &image).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::E2BIG));
    }

    #[test]
    fn offsets_outside_are_refused() {
        let mut bytes = to_bytes(&Setup::default(), &image());
        let last = (bytes.len() as u64).to_ne_bytes();
        for word in [PROGRAMS, DIRECTORY] {
            let mut bytes = bytes.clone();
            bytes[word * 8..][..8].copy_from_slice(&last);
            let mut file = memfd::create_for(bytes.len() as u64).unwrap();
            file.write_all(&bytes).unwrap();
            assert!(Frame::map(file.as_fd(), bytes.len() as u32).is_err());
        }
        bytes.truncate(FIXED * 8 - 1);
        let file = memfd::create_for(8).unwrap();
        assert!(Frame::map(file.as_fd(), bytes.len() as u32).is_err());
    }
}
