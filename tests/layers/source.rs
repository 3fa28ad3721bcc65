//! The modules of a crate as `syn` reads them: their names, and the paths that they write.
//!
//! The tests of layers call it. Invariants:
//! - A module that only tests or documentation compile is not loaded. A test module inside of a
//!   file is read, and its paths bear [`Place::Test`].
//! - A `use` inside of a function counts for its whole module.
//!
//! Not seen: method calls, names that a macro makes up or takes as arguments (`$module::name`),
//! what derives and attributes expand to, and `use` lists inside of a macro's body.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use syn::punctuated::Punctuated;
use syn::visit::{self, Visit};
use syn::{Attribute, Ident, Item, ItemMod, Meta, Token, UseTree, Visibility};

/// What a name in a module stands for.
#[derive(Debug)]
pub enum Binding {
    /// A child module, by its index.
    Module(usize),
    /// Something that the module defines.
    Item,
    /// The path of a `use`.
    Import(Vec<String>),
}

/// How a path is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A private `use`.
    Use,
    /// A `use` with a visibility of its own.
    ReExport,
    /// A path in a type, an expression, a pattern, or a macro's tokens.
    Inline,
}

/// Whether the code is part of the library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Shipped,
    Test,
}

/// One path as it is written.
#[derive(Debug)]
pub struct Written {
    pub segments: Vec<String>,
    pub kind: Kind,
    pub place: Place,
}

/// One module, in a file of its own or inside of one.
#[derive(Debug, Default)]
pub struct Module {
    /// Its names from the crate root on, which has none.
    pub path: Vec<String>,
    /// The file that it stands in.
    pub file: String,
    pub parent: usize,
    pub scope: BTreeMap<String, Vec<Binding>>,
    /// The modules and enums of its glob imports.
    pub globs: Vec<Vec<String>>,
    pub written: Vec<Written>,
    /// Whether it has child modules in files of their own.
    pub has_children: bool,
    /// Whether it has something besides docs, child modules in files of their own, and re-exports.
    pub holds_code: bool,
}

/// A crate: its modules, the root first.
#[derive(Debug, Default)]
pub struct Source {
    pub modules: Vec<Module>,
}

impl Source {
    /// Loads the crate whose root is `root`. `read` returns the text of a file, if there is one.
    pub fn load(root: &str, read: &dyn Fn(&str) -> Option<String>) -> Self {
        let mut source = Self::default();
        source.modules.push(Module { file: root.to_owned(), ..Module::default() });
        source.load_file(0, true, read);
        source
    }

    fn load_file(
        &mut self,
        module: usize,
        owns_folder: bool,
        read: &dyn Fn(&str) -> Option<String>,
    ) {
        let file = self.modules[module].file.clone();
        let text = read(&file).unwrap_or_else(|| panic!("{file}: cannot be read"));
        let parsed = syn::parse_file(&text).unwrap_or_else(|e| panic!("{file}: {e}"));
        let mut folder = PathBuf::from(&file);
        let stem = folder.file_stem().expect("a file name").to_owned();
        folder.pop();
        let beside = folder.clone();
        if !owns_folder {
            folder.push(stem);
        }
        let mut reader =
            Reader { source: self, module, place: Place::Shipped, folder, beside, read, depth: 0 };
        for item in &parsed.items {
            reader.visit_item(item);
        }
    }
}

/// Reads the items of one file.
struct Reader<'a> {
    source: &'a mut Source,
    module: usize,
    place: Place,
    /// Where the files of child modules are.
    folder: PathBuf,
    /// Where the file itself is.
    beside: PathBuf,
    read: &'a dyn Fn(&str) -> Option<String>,
    /// How many items enclose the current one.
    depth: usize,
}

impl Reader<'_> {
    fn current(&mut self) -> &mut Module {
        &mut self.source.modules[self.module]
    }

    fn bind(&mut self, name: String, binding: Binding) {
        self.current().scope.entry(name).or_default().push(binding);
    }

    fn write(&mut self, segments: Vec<String>, kind: Kind) {
        let place = self.place;
        self.current().written.push(Written { segments, kind, place });
    }

    /// Runs `read`, with paths noted as a test's if these attributes say that only tests compile it.
    fn guarded(&mut self, attributes: &[Attribute], read: impl FnOnce(&mut Self)) {
        let before = self.place;
        if !ships(attributes) {
            self.place = Place::Test;
        }
        read(self);
        self.place = before;
    }

    fn child(&mut self, item: &ItemMod) {
        let name = item.ident.to_string();
        if item.content.is_none() && self.place == Place::Test {
            return;
        }
        let index = self.source.modules.len();
        let mut path = self.current().path.clone();
        path.push(name.clone());
        let (parent, file) = (self.module, self.current().file.clone());
        let shipped = self.place == Place::Shipped;
        self.current().has_children |= shipped && item.content.is_none();
        self.bind(name.clone(), Binding::Module(index));
        self.source.modules.push(Module { path, file, parent, ..Module::default() });
        if let Some((_, items)) = &item.content {
            self.source.modules[parent].holds_code |= shipped;
            let (folder, depth) = (self.folder.clone(), self.depth);
            (self.module, self.depth) = (index, 0);
            self.folder.push(&name);
            for item in items {
                self.visit_item(item);
            }
            (self.module, self.folder, self.depth) = (parent, folder, depth);
            return;
        }
        let named = item.attrs.iter().find_map(path_attribute).map(|file| self.beside.join(file));
        let candidates = match named {
            Some(file) => vec![(file, true)],
            None => vec![
                (self.folder.join(format!("{name}.rs")), false),
                (self.folder.join(&name).join("mod.rs"), true),
            ],
        };
        for (file, owns_folder) in candidates {
            let file = plain(&file);
            if (self.read)(&file).is_some() {
                self.source.modules[index].file = file;
                self.source.load_file(index, owns_folder, self.read);
                return;
            }
        }
        panic!("{}: no file for `mod {name}`", self.current().file);
    }

    /// Notes each path of a `use`.
    fn import(&mut self, tree: &UseTree, mut prefix: Vec<String>, kind: Kind) {
        match tree {
            UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.import(&path.tree, prefix, kind);
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.import(tree, prefix.clone(), kind);
                }
            }
            UseTree::Glob(_) => {
                self.current().globs.push(prefix.clone());
                self.write(prefix, Kind::Inline);
            }
            UseTree::Name(name) => self.import_one(&name.ident, &name.ident, prefix, kind),
            UseTree::Rename(name) => self.import_one(&name.ident, &name.rename, prefix, kind),
        }
    }

    fn import_one(&mut self, name: &Ident, bound: &Ident, mut path: Vec<String>, kind: Kind) {
        let is_self = name == "self";
        if !is_self {
            path.push(name.to_string());
        }
        let own = path.last().cloned();
        let bound = if is_self && bound == "self" { own } else { Some(bound.to_string()) };
        if let Some(bound) = bound {
            self.bind(bound, Binding::Import(path.clone()));
        }
        self.write(path, kind);
    }

    /// Notes the paths of two or more segments in a macro's tokens.
    fn tokens(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let is = |at: usize, sign: char| matches!(tokens.get(at), Some(TokenTree::Punct(p)) if p.as_char() == sign);
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Group(group) => {
                    self.tokens(group.stream());
                    at += 1;
                }
                TokenTree::Ident(first) => {
                    let is_variable = at > 0 && is(at - 1, '$') && first != "crate";
                    let mut segments = vec![first.to_string()];
                    at += 1;
                    while is(at, ':')
                        && is(at + 1, ':')
                        && let Some(TokenTree::Ident(next)) = tokens.get(at + 2)
                    {
                        segments.push(next.to_string());
                        at += 3;
                    }
                    if segments.len() > 1 && !is_variable {
                        self.write(segments, Kind::Inline);
                    }
                }
                _ => at += 1,
            }
        }
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        let (attributes, name) = parts(item);
        self.guarded(attributes, |reader| {
            if let Item::Mod(module) = item {
                return reader.child(module);
            }
            if reader.place == Place::Shipped && reader.depth == 0 {
                let is_re_export =
                    matches!(item, Item::Use(item) if kind_of(&item.vis) == Kind::ReExport);
                reader.current().holds_code |= !is_re_export;
            }
            if let Some(name) = name {
                reader.bind(name.to_string(), Binding::Item);
            }
            reader.depth += 1;
            visit::visit_item(reader, item);
            reader.depth -= 1;
        });
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if item.leading_colon.is_none() {
            self.import(&item.tree, Vec::new(), kind_of(&item.vis));
        }
    }

    fn visit_impl_item(&mut self, item: &'ast syn::ImplItem) {
        let attributes = match item {
            syn::ImplItem::Const(item) => &item.attrs,
            syn::ImplItem::Fn(item) => &item.attrs,
            syn::ImplItem::Type(item) => &item.attrs,
            syn::ImplItem::Macro(item) => &item.attrs,
            _ => &Vec::new(),
        };
        self.guarded(attributes, |reader| visit::visit_impl_item(reader, item));
    }

    fn visit_field(&mut self, field: &'ast syn::Field) {
        self.guarded(&field.attrs, |reader| visit::visit_field(reader, field));
    }

    fn visit_local(&mut self, local: &'ast syn::Local) {
        self.guarded(&local.attrs, |reader| visit::visit_local(reader, local));
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none() {
            let segments = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
            self.write(segments, Kind::Inline);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, found: &'ast syn::Macro) {
        visit::visit_macro(self, found);
        self.tokens(found.tokens.clone());
    }

    // `pub(super)` and attributes name no dependency.
    fn visit_visibility(&mut self, _: &'ast Visibility) {}
    fn visit_attribute(&mut self, _: &'ast Attribute) {}
}

fn kind_of(visibility: &Visibility) -> Kind {
    match visibility {
        Visibility::Inherited => Kind::Use,
        _ => Kind::ReExport,
    }
}

/// The attributes of an item, and the name that it defines.
fn parts(item: &Item) -> (&[Attribute], Option<&Ident>) {
    match item {
        Item::Const(item) => (&item.attrs, Some(&item.ident)),
        Item::Enum(item) => (&item.attrs, Some(&item.ident)),
        Item::Fn(item) => (&item.attrs, Some(&item.sig.ident)),
        Item::ForeignMod(item) => (&item.attrs, None),
        Item::Impl(item) => (&item.attrs, None),
        Item::Macro(item) => (&item.attrs, item.ident.as_ref()),
        Item::Mod(item) => (&item.attrs, None),
        Item::Static(item) => (&item.attrs, Some(&item.ident)),
        Item::Struct(item) => (&item.attrs, Some(&item.ident)),
        Item::Trait(item) => (&item.attrs, Some(&item.ident)),
        Item::Type(item) => (&item.attrs, Some(&item.ident)),
        Item::Union(item) => (&item.attrs, Some(&item.ident)),
        Item::Use(item) => (&item.attrs, None),
        _ => (&[], None),
    }
}

/// Whether code with these attributes can be part of the library.
fn ships(attributes: &[Attribute]) -> bool {
    attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident("cfg"))
        .all(|attribute| attribute.parse_args::<Meta>().ok().and_then(|c| value(&c)) != Some(false))
}

/// The value of a condition in a build of the library. `None`: some builds have it.
fn value(condition: &Meta) -> Option<bool> {
    match condition {
        Meta::Path(path) => {
            let never = ["test", "doctest", "doc"].iter().any(|name| path.is_ident(name));
            never.then_some(false)
        }
        Meta::List(list) => {
            let parse = Punctuated::<Meta, Token![,]>::parse_terminated;
            let inner = list.parse_args_with(parse).expect("conditions");
            let values: Vec<_> = inner.iter().map(value).collect();
            let (all, any) = (list.path.is_ident("all"), list.path.is_ident("any"));
            match &values[..] {
                [one] if list.path.is_ident("not") => one.map(|value| !value),
                _ if all && values.contains(&Some(false)) => Some(false),
                _ if all && values.iter().all(|value| *value == Some(true)) => Some(true),
                _ if any && values.contains(&Some(true)) => Some(true),
                _ if any && values.iter().all(|value| *value == Some(false)) => Some(false),
                _ => None,
            }
        }
        Meta::NameValue(_) => None,
    }
}

/// The file of `#[path = "..."]`.
fn path_attribute(attribute: &Attribute) -> Option<String> {
    let Meta::NameValue(pair) = &attribute.meta else { return None };
    let syn::Expr::Lit(literal) = &pair.value else { return None };
    let syn::Lit::Str(text) = &literal.lit else { return None };
    attribute.path().is_ident("path").then(|| text.value())
}

/// A path without `..`.
fn plain(path: &Path) -> String {
    let mut plain = PathBuf::new();
    for part in path.components() {
        if part == Component::ParentDir {
            plain.pop();
        } else {
            plain.push(part);
        }
    }
    plain.to_str().expect("UTF-8").to_owned()
}
