//! System calls that the kernel refuses, as a sandbox does.

/// Stands for the number of a call: `fcntl` with `F_ADD_SEALS`, and nothing else of `fcntl`.
pub const ADD_SEALS: libc::c_long = -1;

/// From here on these calls fail with these errors, in this thread and those that it starts, for good.
pub fn refuse(calls: &[(libc::c_long, i32)]) {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jt, k| libc::sock_filter { code, jt, jf: u8::from(code == EQUAL), k };
    // The number of the call lies at the start of what the filter gets.
    let mut program = vec![step(LOAD, 0, 0)];
    for (call, error) in calls {
        let refusal = step(RETURN, 0, libc::SECCOMP_RET_ERRNO | *error as u32);
        if *call == ADD_SEALS {
            // The low half of the second argument, and then the number again.
            let not_fcntl = libc::sock_filter { jf: 4, ..step(EQUAL, 0, libc::SYS_fcntl as u32) };
            program.extend([not_fcntl, step(LOAD, 0, 24)]);
            program.extend([step(EQUAL, 0, libc::F_ADD_SEALS as u32), refusal, step(LOAD, 0, 0)]);
        } else {
            program.extend([step(EQUAL, 0, *call as u32), refusal]);
        }
    }
    program.push(step(RETURN, 0, libc::SECCOMP_RET_ALLOW));
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the call takes numbers.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    let mode = libc::SECCOMP_MODE_FILTER;
    // SAFETY: a program that outlives the call, as long as it says.
    let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const filter) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}
