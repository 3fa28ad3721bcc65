//! On which processors threads may run, and running on a given one.
//!
//! The choice of how long to spin asks here, and the flush of `memory::fences` goes from processor to
//! processor.
//! Invariants: an answer is a hint, true when it was given; where it is unknown, the call says so.

use std::io;

/// Processors that a [`CpuSet`] has room for.
pub(crate) const MAX_CPUS: u32 = 1024;

/// Some of the first [`MAX_CPUS`] processors, a bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct CpuSet(pub(crate) [u64; (MAX_CPUS / 64) as usize]);

impl CpuSet {
    /// The processors that a thread may run on; 0 is the calling one.
    ///
    /// # Errors
    /// The kernel numbers more processors than the set has room for, or refuses to say.
    fn of_thread(tid: libc::pid_t) -> io::Result<Self> {
        let mut cpus = Self::default();
        // SAFETY: the kernel writes at most as many bytes as the length says, which is the size of
        // the array; a `cpu_set_t` is nothing but such words.
        let result = unsafe {
            libc::sched_getaffinity(tid, size_of_val(&cpus.0), cpus.0.as_mut_ptr().cast())
        };
        super::check(result.into()).map(|_| cpus)
    }

    /// The processors that this process uses: those of the calling thread and of the first one.
    pub(crate) fn of_process() -> io::Result<Self> {
        let first = std::process::id().cast_signed();
        Ok(Self::of_thread(0)?.union(&Self::of_thread(first)?))
    }

    /// The processors that are in either.
    #[must_use]
    pub(crate) fn union(&self, other: &Self) -> Self {
        let mut cpus = *self;
        for (word, more) in cpus.0.iter_mut().zip(other.0) {
            *word |= more;
        }
        cpus
    }

    /// Adds a processor, if there is room for it.
    pub(crate) fn insert(&mut self, cpu: u32) {
        if let Some(word) = self.0.get_mut((cpu / 64) as usize) {
            *word |= 1 << (cpu % 64);
        }
    }

    /// Whether every processor of `other` is in it.
    pub(crate) fn contains_all(&self, other: &Self) -> bool {
        self.union(other) == *self
    }

    /// The processors, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        (0..MAX_CPUS).filter(|cpu| self.0[(cpu / 64) as usize] & (1 << (cpu % 64)) != 0)
    }

    /// The only processor; `None` where there are several.
    fn only(&self) -> Option<u32> {
        let cpus: u32 = self.0.iter().map(|word| word.count_ones()).sum();
        if cpus == 1 { self.iter().next() } else { None }
    }

    /// The processors that are switched on.
    ///
    /// # Errors
    /// The system does not say: `/sys` is missing, say.
    pub(crate) fn online() -> io::Result<Self> {
        let text = std::fs::read_to_string("/sys/devices/system/cpu/online")?;
        Self::parse(text.trim()).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Reads a list such as `0-3,8`.
    fn parse(text: &str) -> Option<Self> {
        let mut cpus = Self::default();
        for range in text.split(',') {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
            (first..=last.min(MAX_CPUS)).for_each(|cpu| cpus.insert(cpu));
        }
        Some(cpus)
    }
}

/// Moves the calling thread to one processor.
///
/// # Errors
/// The processor is switched off, or this thread may not use it.
pub(crate) fn run_on(cpu: u32) -> io::Result<()> {
    let mut cpus = CpuSet::default();
    cpus.insert(cpu);
    // SAFETY: the kernel reads as many bytes as the length says, which is the size of the array.
    let result =
        unsafe { libc::sched_setaffinity(0, size_of_val(&cpus.0), cpus.0.as_ptr().cast()) };
    super::check(result.into())?;
    // The call returns where the thread then runs.
    if current_cpu() == Some(cpu) { Ok(()) } else { Err(io::ErrorKind::Other.into()) }
}

/// The processor on which the calling thread runs at this moment. Makes no system call where the C
/// library reads it from the thread's own memory.
pub(crate) fn current_cpu() -> Option<u32> {
    // SAFETY: the call takes no arguments and touches no memory of ours.
    u32::try_from(unsafe { libc::sched_getcpu() }).ok()
}

/// The one processor that this thread may run on; `None` where there are several, or the kernel does
/// not say.
pub(crate) fn only_cpu() -> Option<u32> {
    CpuSet::of_thread(0).ok()?.only()
}

/// Number of processors that are switched on; `None` where the system does not say.
pub(crate) fn online_cpus() -> Option<u64> {
    // SAFETY: the call takes a number and touches no memory of ours.
    let cpus = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    u64::try_from(cpus).ok().filter(|cpus| *cpus > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_has_one_processor_and_it_is_known_which() {
        let before = only_cpu();
        std::thread::spawn(|| {
            let cpu = current_cpu().unwrap();
            run_on(cpu).unwrap();
            assert_eq!(only_cpu(), Some(cpu));
            assert_eq!(current_cpu(), Some(cpu));
        })
        .join()
        .unwrap();
        assert_eq!(only_cpu(), before, "of that thread only");
        assert!(online_cpus().unwrap() >= 1);
    }

    #[test]
    fn a_list_of_processors_is_read() {
        let found = CpuSet::parse("0-2,65").unwrap();
        assert_eq!(found.iter().collect::<Vec<_>>(), [0, 1, 2, 65]);
        assert_eq!(CpuSet::parse("1023-5000").unwrap().only(), Some(1023));
        assert_eq!(CpuSet::parse("a"), None);
        assert!(found.contains_all(&CpuSet::parse("1,65").unwrap()));
        assert!(!found.contains_all(&CpuSet::parse("3").unwrap()));
    }

    #[test]
    fn this_process_uses_processors_that_are_switched_on() {
        let Ok(online) = CpuSet::online() else { return println!("skipped: no /sys") };
        assert!(online.contains_all(&CpuSet::of_process().unwrap()));
    }
}
