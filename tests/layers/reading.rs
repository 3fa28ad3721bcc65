//! How paths are read, on crates of a few lines.

use std::collections::BTreeMap;

use super::imports::{Imports, circles};
use super::source::Source;

/// The imports of a crate whose files are these, as `from -> to` without folder and ending.
fn imports(files: &[(&str, &str)]) -> Imports {
    let files: BTreeMap<String, String> =
        files.iter().map(|(file, text)| (format!("src/{file}.rs"), (*text).to_owned())).collect();
    Imports::of(&source(&files))
}

fn source(files: &BTreeMap<String, String>) -> Source {
    Source::load("src/lib.rs", &|file| files.get(file).cloned())
}

fn edges(files: &[(&str, &str)]) -> Vec<String> {
    let short = |file: &str| file.trim_start_matches("src/").trim_end_matches(".rs").to_owned();
    imports(files)
        .edges
        .iter()
        .map(|(from, to)| format!("{} -> {}", short(from), short(to)))
        .collect()
}

#[test]
fn a_name_counts_for_the_file_that_defines_it() {
    let files = [
        ("lib", "mod high; mod low;"),
        ("low/mod", "mod middle; pub use middle::Thing as Other;"),
        ("low/middle", "mod deep; pub use self::deep::*;"),
        ("low/middle/deep", "pub struct Thing; pub struct Unused;"),
        ("high", "use crate::low::Other; fn f(_: Other) {}"),
    ];
    assert_eq!(edges(&files), ["high -> low/middle/deep"]);
}

#[test]
fn a_glob_counts_for_what_is_used_through_it() {
    let files = [
        ("lib", "mod a; mod b; mod c;"),
        ("a", "pub fn used() {} pub struct Shape;"),
        ("b", "use crate::a::*; fn f() { used(); }"),
        ("c", "use crate::a::*; fn f() { let x = 1; g(x); } fn g(_: u32) {}"),
    ];
    assert_eq!(edges(&files), ["b -> a"]);
}

#[test]
fn inline_paths_count_from_wherever_they_start() {
    let files = [
        ("lib", "mod a; mod b { pub mod c; pub mod d; }"),
        ("a", "pub fn f() {} pub enum E { X }"),
        ("b/c", "pub fn g() { super::super::a::f(); } pub fn h() { super::d::i(); }"),
        ("b/d", "pub fn i() -> bool { matches!(0, _) } pub fn k() -> u8 { crate::a::E::X as u8 }"),
    ];
    assert_eq!(edges(&files), ["b/c -> a", "b/c -> b/d", "b/d -> a"]);
}

#[test]
fn a_use_in_a_function_and_a_module_alias_count() {
    let files = [
        ("lib", "mod a; mod b; mod c;"),
        ("a", "pub fn f() {}"),
        ("b", "fn g() { use crate::a as other; other::f(); }"),
        ("c", "use super::{a, b::{self}}; fn h() { a::f(); b::unseen(); }"),
    ];
    assert_eq!(edges(&files), ["b -> a", "c -> a", "c -> b"]);
}

#[test]
fn a_name_of_a_module_and_a_function_counts_for_both() {
    let files = [
        ("lib", "mod a; mod b;"),
        ("a/mod", "mod open; pub use open::{open, Mode};"),
        ("a/open", "pub fn open() {} pub struct Mode;"),
        ("b", "use crate::a::open;"),
    ];
    assert_eq!(edges(&files), ["b -> a/open"]);
}

#[test]
fn whole_paths_in_macros_count_and_variables_do_not() {
    let files = [
        ("lib", "mod a; mod b; mod c; mod d;"),
        ("a", "pub fn f() -> u8 { 0 }"),
        ("b", "fn g() { assert_eq!(1, crate::a::f()); }"),
        ("c", "macro_rules! m { ($a:ident) => { $crate::a::f() }; }"),
        ("d", "macro_rules! m { ($a:ident) => { $a::f(); use crate::{a}; }; }"),
    ];
    assert_eq!(edges(&files), ["b -> a", "c -> a"]);
}

#[test]
fn what_only_tests_compile_does_not_count() {
    let files = [
        ("lib", "mod a; mod b; mod c; #[cfg(all(test, not(loom)))] mod no_such_file;"),
        ("a", "pub fn f() {}"),
        ("b", "#[cfg(test)] mod tests { use crate::a::f; } #[cfg(doc)] use crate::a::f;"),
        ("c", "#[cfg(any(test, loom))] use crate::a::f; #[cfg(not(loom))] use crate::b;"),
    ];
    assert_eq!(edges(&files), ["c -> a", "c -> b"]);
}

#[test]
fn paths_into_other_crates_are_seen_whole_in_tests_too() {
    let files = [
        ("lib", "mod a; mod b;"),
        ("a", "use std::sync; fn f() -> sync::atomic::AtomicBool { loop {} }"),
        ("b", "#[cfg(test)] mod tests { use core::sync::atomic::{AtomicU8 as A}; }"),
    ];
    let external = imports(&files).external;
    for (file, path) in [
        ("src/a.rs", "std::sync::atomic::AtomicBool"),
        ("src/b.rs", "core::sync::atomic::AtomicU8"),
    ] {
        assert!(external.contains(&(file.to_owned(), path.to_owned())), "{external:?}");
    }
}

#[test]
fn each_import_of_a_circle_is_named_with_the_way_back() {
    let files = [
        ("lib", "mod a; mod b; mod c; mod d;"),
        ("a", "use crate::b::B; pub struct A;"),
        ("b", "use crate::c::C; pub struct B;"),
        ("c", "use crate::a::A; use crate::d::D; pub struct C;"),
        ("d", "pub struct D;"),
    ];
    let imports = imports(&files);
    let circles = circles(imports.edges.iter());
    assert_eq!(circles.len(), 3);
    let way = &circles[&("src/a.rs".to_owned(), "src/b.rs".to_owned())];
    assert_eq!(way.join(" "), "src/b.rs src/c.rs src/a.rs");
}

#[test]
fn a_root_with_code_is_told_from_one_that_only_leads_on() {
    let files = [
        ("src/lib.rs", "mod a; mod b; mod c; pub use a::A;"),
        ("src/a.rs", "mod x; pub(crate) use x::A; #[cfg(test)] mod tests { fn f() {} }"),
        ("src/a/x.rs", "pub struct A; pub struct B;"),
        ("src/b.rs", "mod x; use x::C;"),
        ("src/b/x.rs", "pub struct C;"),
        ("src/c.rs", "pub use crate::a::A;"),
    ];
    let files = files.map(|(file, text)| (file.to_owned(), text.to_owned()));
    let source = source(&BTreeMap::from(files));
    let roots: Vec<_> = source.modules.iter().filter(|module| module.has_children).collect();
    let with_code: Vec<_> = roots
        .iter()
        .filter(|module| module.holds_code)
        .map(|module| module.file.as_str())
        .collect();
    assert_eq!(roots.len(), 3);
    assert_eq!(with_code, ["src/b.rs"]);
    let imports = Imports::of(&source);
    assert!(imports.re_exports.contains(&("src/lib.rs".to_owned(), "src/a/x.rs".to_owned())));
}
