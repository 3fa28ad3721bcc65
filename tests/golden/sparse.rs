//! Bytes without their zeros: the length, then an offset, a length and the bytes of each stretch.
//!
//! Golden segments are kept so. Invariants: numbers are `u64` in little-endian order; a stretch is a
//! multiple of [`UNIT`] long, or reaches to the end.

/// What is left out are whole units of zeros.
const UNIT: usize = 64;

pub fn pack(bytes: &[u8]) -> Vec<u8> {
    let mut packed = (bytes.len() as u64).to_le_bytes().to_vec();
    let is_zero = |at: usize| bytes[at..bytes.len().min(at + UNIT)].iter().all(|byte| *byte == 0);
    let units: Vec<usize> = (0..bytes.len()).step_by(UNIT).filter(|at| !is_zero(*at)).collect();
    for stretch in units.chunk_by(|before, next| before + UNIT == *next) {
        let start = stretch[0];
        let end = bytes.len().min(start + stretch.len() * UNIT);
        packed.extend((start as u64).to_le_bytes());
        packed.extend(((end - start) as u64).to_le_bytes());
        packed.extend(&bytes[start..end]);
    }
    packed
}

pub fn unpack(packed: &[u8]) -> Vec<u8> {
    let (len, mut rest) = number(packed);
    let mut bytes = vec![0; len];
    while !rest.is_empty() {
        let (start, behind) = number(rest);
        let (len, behind) = number(behind);
        let (stretch, behind) = behind.split_at(len);
        bytes[start..start + len].copy_from_slice(stretch);
        rest = behind;
    }
    bytes
}

fn number(bytes: &[u8]) -> (usize, &[u8]) {
    let (number, rest) = bytes.split_first_chunk().expect("a number");
    (u64::from_le_bytes(*number) as usize, rest)
}

#[test]
fn what_is_packed_is_unpacked() {
    for len in [0, 1, 63, 64, 65, 1000] {
        for fill in [0, 7] {
            let mut bytes = vec![fill; len];
            if len > 200 {
                bytes[100..len - 90].fill(0);
            }
            let packed = pack(&bytes);
            assert!(packed.len() <= len + 40);
            assert_eq!(unpack(&packed), bytes);
        }
    }
}
