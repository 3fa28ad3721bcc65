//! Which file imports from which: what the paths of a [`Source`] lead to.
//!
//! Invariants:
//! - A name counts as an import of the file that defines it, however many re-exports lie between.
//! - A re-export in a module root with children is no import of the root's. It is kept apart, so
//!   that a root that re-exports from a higher layer is seen.
//! - A name that a module does not visibly define (a macro may have made it) counts as its own.
//! - What comes from another crate is noted where its path is written, not where it is used.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::source::{Binding, Kind, Module, Place, Source};

/// From which file to which.
pub type Edge = (String, String);

/// What a path leads to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    Module(usize),
    /// Something that this module defines.
    Item(usize),
    /// Something of another crate.
    External,
}

/// The imports of a crate.
#[derive(Debug, Default)]
pub struct Imports {
    pub edges: BTreeSet<Edge>,
    pub re_exports: BTreeSet<Edge>,
    /// The paths into other crates that each file uses, tests inside of it included.
    pub external: BTreeSet<(String, String)>,
}

impl Imports {
    pub fn of(source: &Source) -> Self {
        let mut imports = Self::default();
        for (index, module) in source.modules.iter().enumerate() {
            for written in &module.written {
                if let Some(path) = external(module, &written.segments) {
                    imports.external.insert((module.file.clone(), path.join("::")));
                }
                for target in resolve(source, index, &written.segments, &mut BTreeSet::new()) {
                    let to = match target {
                        Target::External => continue,
                        Target::Item(to) => to,
                        // The name of a module with children leads to what is named through it.
                        Target::Module(to) if source.modules[to].has_children => continue,
                        Target::Module(_) if written.kind == Kind::Inline => continue,
                        Target::Module(to) => to,
                    };
                    let edge = (module.file.clone(), source.modules[to].file.clone());
                    if written.place == Place::Test || edge.0 == edge.1 {
                        continue;
                    }
                    if written.kind == Kind::ReExport && module.has_children {
                        imports.re_exports.insert(edge);
                    } else {
                        imports.edges.insert(edge);
                    }
                }
            }
        }
        imports
    }
}

/// A path with its beginning written out, if it begins with another crate. `None` for the rest.
fn external(module: &Module, path: &[String]) -> Option<Vec<String>> {
    let (first, rest) = path.split_first()?;
    let Some(bindings) = module.scope.get(first) else { return Some(path.to_vec()) };
    let imported = bindings.iter().find_map(|binding| match binding {
        Binding::Import(path) if path.first() != Some(first) => Some(path),
        _ => None,
    })?;
    Some([&external(module, imported)?, rest].concat())
}

/// The edges that lie on a circle, each with the shortest way back.
pub fn circles<'a>(edges: impl Iterator<Item = &'a Edge> + Clone) -> BTreeMap<Edge, Vec<String>> {
    let mut next: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (from, to) in edges.clone() {
        next.entry(from).or_default().push(to);
    }
    let on_circle = |edge: &'a Edge| Some((edge.clone(), way(&next, &edge.1, &edge.0)?));
    edges.filter_map(on_circle).collect()
}

/// The shortest way along the edges, both ends included.
fn way(next: &BTreeMap<&str, Vec<&str>>, from: &str, to: &str) -> Option<Vec<String>> {
    let mut before: BTreeMap<&str, &str> = BTreeMap::new();
    let mut queue = VecDeque::from([from]);
    while let Some(at) = queue.pop_front() {
        if at == to {
            let mut way = vec![at.to_owned()];
            let mut at = at;
            while at != from {
                at = before[at];
                way.insert(0, at.to_owned());
            }
            return Some(way);
        }
        for step in next.get(at).into_iter().flatten() {
            if *step != from && !before.contains_key(step) {
                before.insert(step, at);
                queue.push_back(step);
            }
        }
    }
    None
}

/// The groups of files that these edges tie into circles.
pub fn groups<'a>(edges: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<BTreeSet<&'a str>> {
    let mut groups: Vec<BTreeSet<&str>> = Vec::new();
    for (from, to) in edges {
        let mut joined = BTreeSet::from([from, to]);
        groups.retain(|group| {
            let touches = group.contains(from) || group.contains(to);
            if touches {
                joined.extend(group);
            }
            !touches
        });
        groups.push(joined);
    }
    groups
}

/// The names that are being looked up, so that a name that leads to itself ends.
type Seen = BTreeSet<(usize, String)>;

fn resolve(source: &Source, at: usize, path: &[String], seen: &mut Seen) -> BTreeSet<Target> {
    let Some((first, rest)) = path.split_first() else { return BTreeSet::new() };
    let start = match first.as_str() {
        "crate" => 0,
        "self" => at,
        "super" => source.modules[at].parent,
        "Self" => return BTreeSet::new(),
        name => {
            let found = lookup(source, at, name, seen);
            if found.is_empty() {
                return BTreeSet::from([Target::External]);
            }
            return found.into_iter().flat_map(|to| follow(source, to, rest, seen)).collect();
        }
    };
    follow(source, Target::Module(start), rest, seen)
}

/// Where the rest of a path leads from what its beginning names.
fn follow(source: &Source, to: Target, rest: &[String], seen: &mut Seen) -> BTreeSet<Target> {
    let (module, name, rest) = match (to, rest) {
        (to, []) => return BTreeSet::from([to]),
        (Target::Module(module), [name, rest @ ..]) => (module, name, rest),
        (Target::Item(module), _) => return BTreeSet::from([Target::Item(module)]),
        (Target::External, _) => return BTreeSet::from([Target::External]),
    };
    if name == "super" {
        return follow(source, Target::Module(source.modules[module].parent), rest, seen);
    }
    let found = lookup(source, module, name, seen);
    if found.is_empty() {
        return BTreeSet::from([Target::Item(module)]);
    }
    found.into_iter().flat_map(|to| follow(source, to, rest, seen)).collect()
}

/// What a name in a module stands for: what is declared there, or else what a glob brings.
fn lookup(source: &Source, at: usize, name: &str, seen: &mut Seen) -> BTreeSet<Target> {
    let module = &source.modules[at];
    let key = (at, name.to_owned());
    let is_new = seen.insert(key.clone());
    let mut found = BTreeSet::new();
    for binding in module.scope.get(name).into_iter().flatten() {
        match binding {
            Binding::Module(to) => {
                found.insert(Target::Module(*to));
            }
            Binding::Item => {
                found.insert(Target::Item(at));
            }
            Binding::Import(path) if is_new => found.extend(resolve(source, at, path, seen)),
            Binding::Import(_) => {}
        }
    }
    if found.is_empty() && is_new {
        for glob in &module.globs {
            for target in resolve(source, at, glob, seen) {
                if let Target::Module(to) = target {
                    found.extend(lookup(source, to, name, seen));
                }
            }
        }
    }
    if is_new {
        seen.remove(&key);
    }
    found
}
