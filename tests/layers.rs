//! The layers of the library, and the rules of its source that no compiler checks.
//!
//! - Imports run downwards, and no files import each other in a circle. An import that runs upwards
//!   is listed as such, and not also as a part of circles.
//! - A module root with children holds docs, `mod` and `pub use` only.
//! - The files of the protocols do not import `os`.
//! - Atomics come from one module.
//! - `unsafe` is allowed in the listed files only.
//!
//! What breaks the first two rules today stands in `layers/allowed.txt`, one line each: `circle`,
//! `root` or `upward`, and the files. A line that is missing fails the test, and so does a line that
//! is true no longer: the list only shrinks. `layers/source.rs` tells which code is not seen.
#![allow(missing_docs)]

#[path = "layers/imports.rs"]
mod imports;
#[path = "layers/reading.rs"]
mod reading;
#[path = "layers/source.rs"]
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use imports::{Edge, Imports, circles, groups};
use source::Source;

/// From the bottom. Layers in one row may import each other.
const LAYERS: [&[&str]; 18] = [
    &["error", "time", "atomics"],
    &["layout"],
    &["os"],
    &["memory"],
    &["identity"],
    &["segment", "ring", "wakeup"],
    &["codec"],
    &["peer"],
    &["wait"],
    &["endpoint"],
    &["channel", "store"],
    &["objects"],
    &["request"],
    &["remote"],
    &["host"],
    &["topic", "rpc"],
    &["any_error", "inspect"],
    &["lib"],
];

/// The layer of each module whose name is another than its layer's. The longest path counts.
const LAYER_OF_MODULE: [(&str, &str); 21] = [
    ("", "lib"),
    ("sync", "atomics"),
    ("typed", "codec"),
    ("supervisor", "peer"),
    ("channel::stranger", "peer"),
    ("callback", "wait"),
    ("channel::selector", "wait"),
    ("channel::attachment", "endpoint"),
    ("channel::calls", "endpoint"),
    ("channel::carry", "endpoint"),
    ("channel::connection", "endpoint"),
    ("channel::cpu", "endpoint"),
    ("channel::drafts", "endpoint"),
    ("channel::lossy::receiver", "endpoint"),
    ("channel::lossy::sender", "endpoint"),
    ("channel::message", "endpoint"),
    ("channel::policy", "endpoint"),
    ("channel::receiver", "endpoint"),
    ("channel::sender", "endpoint"),
    ("channel::typed", "endpoint"),
    ("store::remote", "remote"),
];

/// The modules that know memory through the seam only, with their children.
const PROTOCOLS: [&str; 17] = [
    "ring",
    "wakeup",
    "channel::attachment",
    "channel::call",
    "channel::calls",
    "channel::carry",
    "channel::connection",
    "channel::cpu",
    "channel::drafts",
    "channel::lossy::receiver",
    "channel::lossy::sender",
    "channel::message",
    "channel::policy",
    "channel::receiver",
    "channel::sender",
    "channel::slot_channel",
    "channel::typed",
];

/// What in [`PROTOCOLS`] is none.
const NO_PROTOCOLS: [&str; 1] = ["channel::slot_channel::duplex"];

/// The only file that takes atomics from the standard library.
const ATOMICS: &str = "src/sync.rs";

static LIBRARY: LazyLock<Source> =
    LazyLock::new(|| Source::load("src/lib.rs", &|file| fs::read_to_string(file).ok()));

/// Whether a module is this one or inside of it.
fn is_in(path: &[String], module: &str) -> bool {
    let path = path.join("::");
    module.is_empty() && path.is_empty()
        || !module.is_empty()
            && path
                .strip_prefix(module)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn layer(path: &[String]) -> &str {
    let listed = LAYER_OF_MODULE.iter().filter(|(module, _)| is_in(path, module));
    match listed.max_by_key(|(module, _)| module.len()) {
        Some((_, layer)) => layer,
        None => &path[0],
    }
}

/// How high a layer stands.
fn height(layer: &str) -> usize {
    let row = LAYERS.iter().position(|row| row.contains(&layer));
    row.unwrap_or_else(|| {
        panic!("module `{layer}` has no layer; add it to LAYERS or LAYER_OF_MODULE")
    })
}

/// The layer of each file.
fn layers(source: &Source) -> BTreeMap<&str, &str> {
    let mut layers = BTreeMap::new();
    for module in &source.modules {
        // The first module of a file is the one that the others are inside of.
        layers.entry(module.file.as_str()).or_insert_with(|| layer(&module.path));
    }
    layers
}

/// The violations, each with what to do about it.
fn violations(source: &Source, imports: &Imports) -> BTreeMap<String, String> {
    let layers = layers(source);
    let mut found = BTreeMap::new();
    let layer_of = |file: &String| layers[file.as_str()];
    let is_upward = |(from, to): &Edge| height(layer_of(from)) < height(layer_of(to));
    for (from, to) in imports.edges.union(&imports.re_exports).filter(|edge| is_upward(edge)) {
        let (lower, upper) = (layer_of(from), layer_of(to));
        let advice =
            format!("`{lower}` lies below `{upper}`; move what is needed down, or its use up");
        found.insert(format!("upward {from} -> {to}"), advice);
    }
    for ((from, to), way) in circles(imports.edges.iter().filter(|edge| !is_upward(edge))) {
        let advice =
            format!("it closes the circle {from} -> {}; cut one of these", way.join(" -> "));
        found.insert(format!("circle {from} -> {to}"), advice);
    }
    for module in &source.modules {
        if module.has_children && module.holds_code {
            let advice = "a module root with children holds docs, `mod` and `pub use` only; move the \
                          rest to a file of its own";
            found.insert(format!("root {}", module.file), advice.to_owned());
        }
    }
    found
}

#[test]
fn imports_run_downwards_and_in_no_circle() {
    let imports = Imports::of(&LIBRARY);
    let found = violations(&LIBRARY, &imports);
    let of_kind = |kind: &'static str| found.keys().filter_map(move |line| line.strip_prefix(kind));
    let on_circles = of_kind("circle ").map(|line| line.split_once(" -> ").expect("two files"));
    println!(
        "{} files, {} imports; {} circles of {} imports, {} imports upwards, {} roots with code",
        layers(&LIBRARY).len(),
        imports.edges.len(),
        groups(on_circles.clone()).len(),
        on_circles.count(),
        of_kind("upward ").count(),
        of_kind("root ").count(),
    );

    let text = fs::read_to_string("tests/layers/allowed.txt").expect("the list");
    let allowed: Vec<&str> = text.lines().collect();
    assert!(
        allowed.is_sorted_by(|a, b| a < b),
        "tests/layers/allowed.txt: sort it, each line once"
    );
    let mut complaints = Vec::new();
    for (line, advice) in &found {
        if !allowed.contains(&line.as_str()) {
            complaints.push(format!("new: {line}\n    {advice}"));
        }
    }
    for line in allowed {
        if !found.contains_key(line) {
            complaints.push(format!("gone, remove it from tests/layers/allowed.txt: {line}"));
        }
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn protocol_files_do_not_import_os() {
    let protocols: BTreeSet<&str> = LIBRARY
        .modules
        .iter()
        .filter(|module| PROTOCOLS.iter().any(|protocol| is_in(&module.path, protocol)))
        .filter(|module| !NO_PROTOCOLS.iter().any(|other| is_in(&module.path, other)))
        .map(|module| module.file.as_str())
        .collect();
    for module in PROTOCOLS.iter().chain(&NO_PROTOCOLS) {
        let exists = LIBRARY.modules.iter().any(|found| found.path.join("::") == *module);
        assert!(exists, "module `{module}` is gone; remove it from PROTOCOLS or NO_PROTOCOLS");
    }
    let imports = Imports::of(&LIBRARY);
    let layers = layers(&LIBRARY);
    for (from, to) in imports.edges.union(&imports.re_exports) {
        assert!(
            !protocols.contains(from.as_str()) || layers[to.as_str()] != "os",
            "{from} imports {to}: a protocol reaches the system through `Memory` only"
        );
    }
}

#[test]
fn atomics_come_from_one_module() {
    for (file, path) in Imports::of(&LIBRARY).external {
        let is_atomic = ["core", "std"]
            .iter()
            .any(|library| path.starts_with(&format!("{library}::sync::atomic")));
        assert!(
            !is_atomic || file == ATOMICS,
            "{file} uses `{path}`: take it from the crate's own module {ATOMICS}"
        );
    }
}

/// The files under a directory that say `allow(unsafe_code)`, tests included.
fn allow_unsafe(directory: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            allow_unsafe(&path, found);
        } else if fs::read_to_string(&path).is_ok_and(|text| text.contains("allow(unsafe_code")) {
            found.insert(path.to_str().expect("UTF-8").to_owned());
        }
    }
}

#[test]
fn unsafe_is_allowed_in_listed_files_only() {
    let mut found = BTreeSet::new();
    allow_unsafe(Path::new("src"), &mut found);
    let text = fs::read_to_string("tests/layers/unsafe.txt").expect("the list");
    let listed: BTreeSet<String> = text.lines().map(str::to_owned).collect();
    assert!(listed.iter().eq(text.lines()), "tests/layers/unsafe.txt: sort it, each line once");
    let new: Vec<_> = found.difference(&listed).collect();
    assert!(
        new.is_empty(),
        "unsafe is allowed in files that tests/layers/unsafe.txt lacks: {new:#?}"
    );
    let gone: Vec<_> = listed.difference(&found).collect();
    assert!(
        gone.is_empty(),
        "remove from tests/layers/unsafe.txt, they allow no unsafe: {gone:#?}"
    );
}
