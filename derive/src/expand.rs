//! From a type's definition to the `impl` of its schema.
//!
//! [`derive_schema`](crate::derive_schema) calls it. What always holds: fields and variants go into
//! the fingerprint in the order in which they stand, each with its name; the type's own name does
//! not.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{
    Data, DataEnum, DeriveInput, Error, Fields, GenericParam, Generics, Result, parse_quote,
};

use crate::attributes::{Repr, opaque, refuse};

/// The `impl` block.
pub(crate) fn schema(input: &DeriveInput) -> Result<TokenStream> {
    refuse(&input.attrs)?;
    let repr = Repr::of(&input.attrs)?;
    let fingerprint = match &input.data {
        Data::Struct(data) => {
            let offsets = if repr.is_fixed { offsets(&data.fields) } else { TokenStream::new() };
            let fields = fields(&data.fields)?;
            quote!(::ringway::typed::Fingerprint::new("struct") #fields #offsets)
        }
        Data::Enum(data) => variants(data, &repr)?,
        Data::Union(data) => {
            let message = "a union's bytes mean what its users agree on, which no schema shows";
            return Err(Error::new_spanned(data.union_token, message));
        }
    };
    let layout = repr.is_fixed.then(|| {
        quote! {
            .number(::core::mem::size_of::<Self>() as u64)
            .number(::core::mem::align_of::<Self>() as u64)
        }
    });
    let generics = bounded(&input.generics);
    let (parameters, arguments, clause) = generics.split_for_impl();
    let name = &input.ident;
    Ok(quote! {
        #[automatically_derived]
        impl #parameters ::ringway::typed::Schema for #name #arguments #clause {
            const FINGERPRINT: u64 = #fingerprint #layout.finish();
        }
    })
}

/// Every type parameter must have a schema of its own.
fn bounded(generics: &Generics) -> Generics {
    let mut generics = generics.clone();
    for parameter in &mut generics.params {
        if let GenericParam::Type(parameter) = parameter {
            parameter.bounds.push(parse_quote!(::ringway::typed::Schema));
        }
    }
    generics
}

/// `.field("name", fingerprint)` for each field.
fn fields(fields: &Fields) -> Result<TokenStream> {
    let mut calls = TokenStream::new();
    for (index, field) in fields.iter().enumerate() {
        let name = match &field.ident {
            Some(name) => syn::ext::IdentExt::unraw(name).to_string(),
            None => index.to_string(),
        };
        let kind = &field.ty;
        let fingerprint = match opaque(&field.attrs)? {
            Some(number) => quote!(::ringway::typed::Fingerprint::opaque(#number)),
            None => quote!(<#kind as ::ringway::typed::Schema>::FINGERPRINT),
        };
        calls.extend(quote!(.field(#name, #fingerprint)));
    }
    Ok(calls)
}

/// Where each field of a struct lies.
fn offsets(fields: &Fields) -> TokenStream {
    fields
        .members()
        .map(|member| quote!(.number(::core::mem::offset_of!(Self, #member) as u64)))
        .collect()
}

/// Each variant with its discriminant and its fields.
fn variants(data: &DataEnum, repr: &Repr) -> Result<TokenStream> {
    let kind = repr.discriminant_type();
    let mut discriminants = TokenStream::new();
    let mut calls = TokenStream::new();
    let mut last: Option<syn::Ident> = None;
    for (index, variant) in data.variants.iter().enumerate() {
        refuse(&variant.attrs)?;
        let discriminant = format_ident!("discriminant_{index}");
        let value = match (&variant.discriminant, &last) {
            (Some((_, value)), _) => quote!(#value),
            (None, Some(last)) => quote!(#last.wrapping_add(1)),
            (None, None) => quote!(0),
        };
        discriminants.extend(quote!(let #discriminant: #kind = #value;));
        let name = syn::ext::IdentExt::unraw(&variant.ident).to_string();
        let count = variant.fields.len() as u64;
        let fields = fields(&variant.fields)?;
        calls.extend(quote!(.variant(#name, #discriminant as i128, #count) #fields));
        last = Some(discriminant);
    }
    Ok(quote!({
        #discriminants
        ::ringway::typed::Fingerprint::new("enum") #calls
    }))
}
