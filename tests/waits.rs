//! Every call in the library that can wait stands in SAFETY.md, with what it waits on and its bound.
//!
//! Looks at the text of `src`. Invariants: a call that is not in the table fails the test, and so does a
//! row whose call is gone.
#![allow(missing_docs)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Calls that can wait, as they are written.
const CALLS: [&str; 23] = [
    ".join()",
    "thread::sleep",
    ".wait_timeout(",
    ".wait_timeout_while(",
    ".wait_while(",
    "settled.wait(",
    "ended.wait(",
    "added.wait(",
    "changed.wait(",
    "libc::ppoll",
    "libc::poll(",
    "epoll_wait",
    "libc::waitid",
    "libc::waitpid",
    "SYS_futex",
    "libc::clone",
    "pthread_mutex_lock",
    "pthread_mutex_clocklock",
    "libc::recvmsg",
    "libc::sendmsg",
    "libc::read",
    "libc::write",
    "F_OFD_SETLKW",
];

/// The lines of a file that ship: no tests, no comments.
fn shipped(text: &str) -> String {
    let tests = text.find("\nmod tests {").or_else(|| text.find("\npub(crate) mod tests {"));
    let text = &text[..tests.unwrap_or(text.len())];
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

fn visit(directory: &Path, found: &mut BTreeSet<(String, String)>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.to_string_lossy().into_owned();
        if name.contains("tests") || name.ends_with("model.rs") {
            continue;
        }
        if path.is_dir() {
            visit(&path, found);
        } else if name.ends_with(".rs") {
            let text = shipped(&fs::read_to_string(&path).unwrap());
            let calls = CALLS.into_iter().filter(|call| text.contains(call));
            found.extend(calls.map(|call| (name.clone(), call.to_owned())));
        }
    }
}

/// The rows of the table: file and calls in the first two columns.
fn listed(text: &str) -> BTreeSet<(String, String)> {
    let is_ours =
        |section: &&str| section.lines().next().unwrap().contains("Every call that can wait");
    let section = text.split("\n## ").skip(1).find(is_ours);
    let mut rows = BTreeSet::new();
    for line in section.expect("the section").lines().filter(|line| line.starts_with("| `src/")) {
        let mut columns = line.split('|').skip(1).map(str::trim);
        let file = columns.next().unwrap().trim_matches('`').to_owned();
        let calls = columns.next().unwrap();
        for call in calls.split(", ").map(|call| call.trim_matches('`')) {
            rows.insert((file.clone(), call.to_owned()));
        }
        let bound = columns.nth(1).unwrap();
        assert!(!bound.is_empty(), "no bound in {line}");
    }
    rows
}

#[test]
fn f54_f57_f63_every_call_that_can_wait_is_in_the_table() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // The names in the table are relative to the repository, where tests run.
    assert_eq!(root, std::env::current_dir().unwrap());
    let mut found = BTreeSet::new();
    visit(Path::new("src"), &mut found);
    let listed = listed(&fs::read_to_string("SAFETY.md").unwrap());
    let missing: Vec<_> = found.difference(&listed).collect();
    assert!(
        missing.is_empty(),
        "SAFETY.md says nothing of these calls; add what they wait on and their bound: {missing:#?}"
    );
    let gone: Vec<_> = listed.difference(&found).collect();
    assert!(gone.is_empty(), "these rows of SAFETY.md have no call any more: {gone:#?}");
}
