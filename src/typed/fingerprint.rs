//! The hash that fingerprints are made with.
//!
//! The derive macro, the types of `std` and the codecs call it, all while the program is compiled.
//! What always holds: what goes in is delimited, so that no two different sequences of calls hash the
//! same bytes; and nothing of it may change without a new
//! [`LAYOUT_VERSION`](crate::layout::LAYOUT_VERSION), because two programs compare the results.

/// A fingerprint in the making.
///
/// ```
/// use ringway::typed::{Fingerprint, Schema};
///
/// // By hand, what the derive writes for `struct Tick { price: u64 }`.
/// const TICK: u64 = Fingerprint::new("struct").field("price", u64::FINGERPRINT).finish();
///
/// #[derive(ringway::Schema)]
/// struct Tick {
///     price: u64,
/// }
/// assert_eq!(Tick::FINGERPRINT, TICK);
/// # let _ = Tick { price: 1 }.price;
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Fingerprint(u64);

impl Fingerprint {
    /// Begins with what kind of type this is.
    pub const fn new(kind: &str) -> Self {
        Self(0xcbf2_9ce4_8422_2325).text(kind)
    }

    /// The fingerprint of a type that says no more about itself than a version.
    pub const fn opaque(version: u64) -> u64 {
        Self::new("opaque").number(version).finish()
    }

    /// Adds a name.
    #[must_use]
    pub const fn text(self, text: &str) -> Self {
        let bytes = text.as_bytes();
        let mut hash = self.number(bytes.len() as u64);
        let mut index = 0;
        while index < bytes.len() {
            hash = hash.byte(bytes[index]);
            index += 1;
        }
        hash
    }

    /// Adds a number, another type's fingerprint for example.
    #[must_use]
    pub const fn number(mut self, number: u64) -> Self {
        let bytes = number.to_le_bytes();
        let mut index = 0;
        while index < bytes.len() {
            self = self.byte(bytes[index]);
            index += 1;
        }
        self
    }

    /// Adds a field: its name and its type's fingerprint.
    #[must_use]
    pub const fn field(self, name: &str, fingerprint: u64) -> Self {
        self.text(name).number(fingerprint)
    }

    /// Begins a variant of an enum: its name, discriminant, and how many fields will follow.
    #[must_use]
    pub const fn variant(self, name: &str, discriminant: i128, fields: u64) -> Self {
        let discriminant = discriminant as u128;
        self.text(name)
            .number(discriminant as u64)
            .number((discriminant >> 64) as u64)
            .number(fields)
    }

    /// The fingerprint; never 0, which in a segment's header means that there is none.
    pub const fn finish(self) -> u64 {
        // FNV-1a mixes upwards only; this brings every bit everywhere (MurmurHash3's finaliser).
        let mut hash = self.0;
        hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash = (hash ^ hash >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        hash ^= hash >> 33;
        if hash == 0 { 1 } else { hash }
    }

    /// One step of FNV-1a.
    const fn byte(self, byte: u8) -> Self {
        Self((self.0 ^ byte as u64).wrapping_mul(0x0000_0100_0000_01b3))
    }
}
