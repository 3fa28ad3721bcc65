//! On which processors this thread may run, and how many there are.
//!
//! The choice of the fence and of how long to spin asks here.
//! What always holds: the answer is a hint, true when it was given; where it is unknown, it says
//! so.

/// The one processor that this thread may run on; `None` where there are several, or the kernel does
/// not say.
pub(crate) fn only_cpu() -> Option<u32> {
    // Room for 65536 processors, more than any kernel is built for.
    let mut mask = [0_u64; 1024];
    let len_bytes = size_of_val(&mask);
    // SAFETY: the kernel writes at most `len_bytes` bytes, which is the size of `mask`; a
    // `cpu_set_t` is nothing but such words.
    let result = unsafe { libc::sched_getaffinity(0, len_bytes, mask.as_mut_ptr().cast()) };
    let cpus: u32 = mask.iter().map(|word| word.count_ones()).sum();
    if result != 0 || cpus != 1 {
        return None;
    }
    let word = mask.iter().position(|word| *word != 0)?;
    Some(word as u32 * 64 + mask[word].trailing_zeros())
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
            // SAFETY: the call takes no arguments and touches no memory of ours.
            let cpu = usize::try_from(unsafe { libc::sched_getcpu() }).unwrap();
            let mut mask = [0_u64; 1024];
            mask[cpu / 64] = 1 << (cpu % 64);
            // SAFETY: `mask` is as long as the length says; it is only read.
            let result =
                unsafe { libc::sched_setaffinity(0, size_of_val(&mask), mask.as_ptr().cast()) };
            assert_eq!(result, 0);
            assert_eq!(only_cpu(), u32::try_from(cpu).ok());
        })
        .join()
        .unwrap();
        assert_eq!(only_cpu(), before, "of that thread only");
        assert!(online_cpus().unwrap() >= 1);
    }
}
