//! The trait that gives a type its fingerprint.
//!
//! Users derive it; codecs ask it. What always holds: it is a constant of the type, which no value
//! and no peer changes.

/// A type that can be told from others by its fields.
///
/// Two programs that share a typed channel compare fingerprints when the second attaches, so that a
/// plugin that was built against another version of a message gets an error instead of nonsense.
/// Derive it:
///
/// ```
/// use ringway::Schema;
///
/// #[derive(Schema)]
/// #[repr(C)]
/// struct Tick {
///     price: u64,
///     size: u32,
///     side: Side,
/// }
///
/// #[derive(Schema)]
/// #[repr(u32)]
/// enum Side {
///     Bid = 1,
///     Ask = 2,
/// }
/// # let _ = (Tick { price: 0, size: 0, side: Side::Bid }, Side::Ask);
/// ```
///
/// What goes into the fingerprint, in the order in which it stands:
///
/// - names and types of fields, the latter by their own fingerprints, to any depth;
/// - names, discriminants and fields of variants;
/// - where a `repr` fixes the layout (`C`, `transparent`, an integer): size and alignment, and the
///   fields' offsets of a struct.
///
/// What does not: the type's own name and path, its attributes, methods, and what a field means. A
/// type that was renamed keeps its fingerprint; a price that is now in cents has it too, so rename
/// the field.
///
/// Generic types have a schema where their parameters do. A type that contains itself cannot have
/// one: its fingerprint would need itself. A field whose type has no schema, because it is from
/// another crate or contains its parent, stands with a number of your own, which you change whenever
/// it changes:
///
/// ```
/// # use ringway::Schema;
/// #[derive(Schema)]
/// struct Node {
///     value: u64,
///     #[schema(opaque = 1)]
///     next: Option<Box<Node>>,
/// }
/// # let _ = Node { value: 1, next: None }.next.map(|node| node.value);
/// ```
///
/// A field without a schema does not compile:
///
/// ```compile_fail,E0277
/// #[derive(ringway::Schema)]
/// struct Process {
///     child: std::process::Child,
/// }
/// ```
///
/// Neither does a type that contains itself:
///
/// ```compile_fail,E0391
/// #[derive(ringway::Schema)]
/// struct List {
///     next: Option<Box<List>>,
/// }
/// # const USED: u64 = <List as ringway::Schema>::FINGERPRINT;
/// ```
///
/// Nor a union, nor an attribute that says nothing:
///
/// ```compile_fail
/// #[derive(ringway::Schema)]
/// union Either {
///     a: u32,
///     b: f32,
/// }
/// ```
///
/// ```compile_fail
/// #[derive(ringway::Schema)]
/// struct Misspelt {
///     #[schema(opague = 1)]
///     a: u32,
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no schema",
    note = "derive it with `#[derive(ringway::Schema)]`",
    note = "for a field of a foreign type, give it a version: `#[schema(opaque = 1)]`"
)]
pub trait Schema {
    /// The fingerprint; never 0.
    const FINGERPRINT: u64;
}
