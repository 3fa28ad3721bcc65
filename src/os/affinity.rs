//! On how many processors this thread may run.
//!
//! The choice of the fence and of how long to spin asks here.
//! What always holds: the answer is a hint, true when it was given; where it is unknown, it says
//! so.

/// Number of processors that this thread may run on; `None` where the kernel does not say.
pub(crate) fn available_cpus() -> Option<usize> {
    // Room for 65536 processors, more than any kernel is built for.
    let mut mask = [0_u64; 1024];
    let len_bytes = size_of_val(&mask);
    // SAFETY: the kernel writes at most `len_bytes` bytes, which is the size of `mask`; a
    // `cpu_set_t` is nothing but such words.
    let result = unsafe { libc::sched_getaffinity(0, len_bytes, mask.as_mut_ptr().cast()) };
    let cpus: u32 = mask.iter().map(|word| word.count_ones()).sum();
    (result == 0 && cpus > 0).then_some(cpus as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_has_one_processor() {
        let before = available_cpus().unwrap();
        std::thread::spawn(|| {
            // SAFETY: the call takes no arguments and touches no memory of ours.
            let cpu = usize::try_from(unsafe { libc::sched_getcpu() }).unwrap();
            let mut mask = [0_u64; 1024];
            mask[cpu / 64] = 1 << (cpu % 64);
            // SAFETY: `mask` is as long as the length says; it is only read.
            let result =
                unsafe { libc::sched_setaffinity(0, size_of_val(&mask), mask.as_ptr().cast()) };
            assert_eq!(result, 0);
            assert_eq!(available_cpus(), Some(1));
            assert_eq!(crate::memory::FenceMode::detect(), crate::memory::FenceMode::Real);
        })
        .join()
        .unwrap();
        assert_eq!(available_cpus(), Some(before), "of that thread only");
    }
}
