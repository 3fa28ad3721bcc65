//! What the derive reads from attributes: `#[repr(…)]` of a type, `#[schema(…)]` of a field.
//!
//! [`expand`](crate::expand) calls it. What always holds: an attribute of ours that says nothing we
//! know is a compile error; everybody else's are left alone.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Attribute, Expr, Ident, Result, Token};

/// The memory layout that a type's attributes promise.
#[derive(Default)]
pub(crate) struct Repr {
    /// Whether there is a promise at all: without one the layout is the compiler's business.
    pub(crate) is_fixed: bool,
    /// The type of an enum's discriminants, where one is named.
    pub(crate) discriminant: Option<Ident>,
}

impl Repr {
    pub(crate) fn of(attributes: &[Attribute]) -> Result<Self> {
        const INTEGERS: [&str; 12] = [
            "u8", "u16", "u32", "u64", "u128", "usize", "i8", "i16", "i32", "i64", "i128", "isize",
        ];
        let mut repr = Self::default();
        for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("repr")) {
            attribute.parse_nested_meta(|meta| {
                let integer = meta
                    .path
                    .get_ident()
                    .filter(|name| INTEGERS.iter().any(|integer| *name == integer));
                if let Some(integer) = integer {
                    repr.discriminant = Some(integer.clone());
                }
                repr.is_fixed |= integer.is_some()
                    || meta.path.is_ident("C")
                    || meta.path.is_ident("transparent");
                // `packed(2)`, `align(16)`: part of the layout, which is measured.
                if meta.input.peek(syn::token::Paren) {
                    let content;
                    syn::parenthesized!(content in meta.input);
                    content.parse::<Expr>()?;
                }
                Ok(())
            })?;
        }
        Ok(repr)
    }

    /// The type of the discriminants.
    pub(crate) fn discriminant_type(&self) -> TokenStream {
        match &self.discriminant {
            Some(integer) => quote!(#integer),
            None => quote!(isize),
        }
    }
}

/// The number of `#[schema(opaque = 1)]`, which stands for a field whose type has no schema.
pub(crate) fn opaque(attributes: &[Attribute]) -> Result<Option<Expr>> {
    let mut number = None;
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("schema")) {
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("opaque") {
                return Err(meta.error("expected `opaque = <number>`"));
            }
            meta.input.parse::<Token![=]>()?;
            number = Some(meta.input.parse::<Expr>()?);
            Ok(())
        })?;
    }
    Ok(number)
}

/// Refuses `#[schema(…)]` where it means nothing.
pub(crate) fn refuse(attributes: &[Attribute]) -> Result<()> {
    match attributes.iter().find(|attribute| attribute.path().is_ident("schema")) {
        Some(attribute) => Err(syn::Error::new_spanned(attribute, "belongs on a field")),
        None => Ok(()),
    }
}
