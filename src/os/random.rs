//! Random bytes from the kernel.
//!
//! Segments take their incarnation from here.
//! What always holds: the bytes are as good as the kernel's generator and differ after a fork.

use std::io;

/// 128 random bits.
pub(crate) fn random_u128() -> io::Result<u128> {
    let mut bytes = [0_u8; 16];
    loop {
        // SAFETY: the pointer and the length describe `bytes`, which outlives the call.
        let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
        match super::check(got as libc::c_long) {
            // Requests of up to 256 bytes are answered in full or not at all.
            Ok(_) => return Ok(u128::from_ne_bytes(bytes)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_are_the_same() {
        assert_ne!(random_u128().unwrap(), random_u128().unwrap());
    }
}
