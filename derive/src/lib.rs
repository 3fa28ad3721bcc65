//! The derive macro of [`ringway`](https://docs.rs/ringway)'s message schemas.
//!
//! `ringway` re-exports it; nobody depends on this crate directly. What always holds: what it
//! writes is one constant, computed at compile time from the type's fields and variants, and nothing
//! of it depends on what the type is called or where it lives.

mod attributes;
mod expand;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Implements `ringway::Schema`: a fingerprint of a type's fields.
///
/// See the documentation of the trait, `ringway::typed::Schema`.
#[proc_macro_derive(Schema, attributes(schema))]
pub fn derive_schema(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    expand::schema(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}
