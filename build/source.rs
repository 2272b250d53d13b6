//! Finds the source files that a module depends on inside its workspace, by parsing them.
//!
//! A member is a folder in `src` with a `lib.rs`: `caco_engine::x` is the module `x` of the folder `engine`.
//!
//! The unit is the file. A file reaches another when it names something defined there: by a path in its code, by a
//! private `use`, through a re-export (only the one that is named), or in the path of a serde attribute. A file with an
//! `impl` for a type defined elsewhere is reached by every file that reaches the type. A file with an `extern "C"`
//! block reaches all C and C++ in its folder, and the script that compiles it.
//!
//! A file's digest covers its tokens, without comments, layout, tests, imports and `mod` lines.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use quote::ToTokens;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs, io,
    path::{Path, PathBuf},
};
use syn::{
    Attribute, Expr, Item, Stmt, UseTree, Visibility,
    visit_mut::{self, VisitMut},
};

type Names = Vec<String>;

/// The modules of a workspace.
pub struct Crate {
    modules: HashMap<Names, Module>,
    members: BTreeSet<String>,
}

struct Module {
    /// Relative to the package.
    file: String,
    digest: String,
    children: BTreeSet<String>,
    /// Names that `use` brings into scope, with the paths they stand for.
    aliases: HashMap<String, Names>,
    /// `use a::*`.
    globs: Vec<Names>,
    /// Paths of private `use` lines. An import may be used only as a trait, and so never be named.
    imports: Vec<Names>,
    /// Paths in the code, including single names.
    paths: BTreeSet<Names>,
    /// Types that this file has an `impl` for.
    implemented: Vec<Names>,
    items: BTreeSet<String>,
    beside: Vec<(String, String)>,
}

/// What a module reaches: files with their digests, and the names of other crates.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Reach {
    pub files: BTreeMap<String, String>,
    pub crates: BTreeSet<String>,
}

impl Crate {
    /// Reads the crate below `root/src`. `native` are further files that code with an `extern "C"` block depends on.
    pub fn read(root: &Path, native: &[&str]) -> Result<Crate, String> {
        let mut modules = HashMap::new();
        read_folder(root, &root.join("src"), &mut vec![], native, &mut modules)?;
        let names: Vec<Names> = modules.keys().cloned().collect();
        for name in names {
            if let Some((last, parent)) = name.split_last()
                && let Some(parent) = modules.get_mut(parent)
            {
                parent.children.insert(last.clone());
            }
        }
        let is_member = |name: &Names| name.len() == 1 && modules[name].file == format!("src/{}/lib.rs", name[0]);
        let members = modules.keys().filter(|name| is_member(name)).map(|name| name[0].clone()).collect();
        Ok(Crate { modules, members })
    }

    /// Collects everything that these modules reach, including themselves.
    pub fn reach(&self, roots: &[Names]) -> Reach {
        let extensions = self.extensions();
        let mut reach = Reach::default();
        let mut open: Vec<&Names> =
            roots.iter().filter_map(|root| self.modules.get_key_value(root).map(|(k, _)| k)).collect();
        while let Some(name) = open.pop() {
            let module = &self.modules[name];
            if reach.files.insert(module.file.clone(), module.digest.clone()).is_some() {
                continue;
            }
            reach.files.extend(module.beside.iter().cloned());
            let mut found = BTreeSet::new();
            for path in module.imports.iter().chain(&module.paths) {
                self.resolve(name, path, &mut found, &mut reach.crates, 0);
            }
            found.extend(extensions.get(name).into_iter().flatten().cloned());
            open.extend(found.iter().filter_map(|f| self.modules.get_key_value(f).map(|(k, _)| k)));
        }
        reach
    }

    /// Maps the module of a type to the other modules that have an `impl` for it.
    fn extensions(&self) -> HashMap<Names, BTreeSet<Names>> {
        let mut extensions: HashMap<Names, BTreeSet<Names>> = HashMap::new();
        for (name, module) in &self.modules {
            for path in &module.implemented {
                let mut found = BTreeSet::new();
                self.resolve(name, path, &mut found, &mut BTreeSet::new(), 0);
                found
                    .into_iter()
                    .filter(|of| of != name)
                    .for_each(|of| _ = extensions.entry(of).or_default().insert(name.clone()));
            }
        }
        extensions
    }

    /// Finds the module that defines what `path` refers to inside module `from`.
    fn resolve(
        &self,
        from: &Names,
        path: &[String],
        found: &mut BTreeSet<Names>,
        crates: &mut BTreeSet<String>,
        depth: u32,
    ) {
        let Some((first, rest)) = path.split_first() else { return };
        // Re-exports may form a cycle; no real chain is this long.
        if depth > 16 {
            return;
        }
        match first.as_str() {
            // The path in `pub(super)` is a visibility, and reaches nothing.
            "crate" | "self" | "super" if rest.is_empty() => {}
            "crate" => self.walk(self.root_of(from), rest, found, crates, depth),
            "self" => self.walk(from.clone(), rest, found, crates, depth),
            "super" => self.walk(from[..from.len().saturating_sub(1)].to_vec(), rest, found, crates, depth),
            _ if self.member(first).is_some() => {
                self.walk(self.member(first).unwrap_or_default(), rest, found, crates, depth);
            }
            _ => {
                let module = &self.modules[from];
                if module.items.contains(first) {
                } else if module.aliases.contains_key(first) || (module.children.contains(first) && !rest.is_empty()) {
                    self.walk(from.clone(), path, found, crates, depth);
                } else if !self.through_globs(from, path, found, crates, depth) && !rest.is_empty() {
                    // A single name is more likely a variable than a crate.
                    crates.insert(first.clone());
                }
            }
        }
    }

    /// Follows `path` from inside a module to the module that defines its last segment.
    fn walk(&self, at: Names, path: &[String], found: &mut BTreeSet<Names>, crates: &mut BTreeSet<String>, depth: u32) {
        let Some(module) = self.modules.get(&at) else { return };
        let Some((first, rest)) = path.split_first() else {
            found.insert(at);
            return;
        };
        if first == "super" {
            return self.walk(at[..at.len().saturating_sub(1)].to_vec(), rest, found, crates, depth);
        }
        if module.children.contains(first) {
            return self.walk([at, vec![first.clone()]].concat(), rest, found, crates, depth);
        }
        if module.items.contains(first) {
            found.insert(at);
        } else if let Some(target) = module.aliases.get(first) {
            self.resolve(&at, &[target.as_slice(), rest].concat(), found, crates, depth + 1);
        } else if !self.through_globs(&at, path, found, crates, depth) {
            found.insert(at);
        }
    }

    /// Follows `path` if a `use a::*` of the module brings its first name into scope. Returns whether one does.
    fn through_globs(
        &self,
        at: &Names,
        path: &[String],
        found: &mut BTreeSet<Names>,
        crates: &mut BTreeSet<String>,
        depth: u32,
    ) -> bool {
        for glob in &self.modules[at].globs {
            let Some(target) = self.module_of(at, glob) else { continue };
            let module = &self.modules[&target];
            // A module alone is not a value: a field or a variable may have the same name.
            let is_module = |name: &String| path.len() > 1 && module.children.contains(name);
            let here =
                |name: &String| module.items.contains(name) || is_module(name) || module.aliases.contains_key(name);
            if here(&path[0]) {
                self.walk(target, path, found, crates, depth + 1);
                return true;
            }
        }
        false
    }

    /// Returns the crate that a module belongs to.
    fn root_of(&self, module: &Names) -> Names {
        module.first().filter(|first| self.members.contains(*first)).cloned().into_iter().collect()
    }

    /// Returns the member that a path calls by this name.
    fn member(&self, name: &str) -> Option<Names> {
        let member = name.strip_prefix("caco_")?;
        self.members.contains(member).then(|| vec![member.into()])
    }

    fn module_of(&self, from: &Names, path: &[String]) -> Option<Names> {
        let mut at = match path.first()?.as_str() {
            "crate" => self.root_of(from),
            "self" => from.clone(),
            "super" => from[..from.len().saturating_sub(1)].to_vec(),
            name if self.member(name).is_some() => self.member(name)?,
            name => [from.clone(), vec![name.into()]].concat(),
        };
        for name in &path[1..] {
            if name == "super" { drop(at.pop()) } else { at.push(name.clone()) }
        }
        self.modules.contains_key(&at).then_some(at)
    }
}

fn read_folder(
    root: &Path,
    folder: &Path,
    name: &mut Names,
    native: &[&str],
    modules: &mut HashMap<Names, Module>,
) -> Result<(), String> {
    let failed = |path: &Path, e: &dyn std::fmt::Display| format!("cannot read {}: {e}", path.display());
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .and_then(|entries| entries.map(|e| e.map(|e| e.path())).collect::<io::Result<_>>())
        .map_err(|e| failed(folder, &e))?;
    paths.sort();
    let foreign: Vec<&PathBuf> = paths
        .iter()
        .filter(|p| p.extension().is_some_and(|e| ["c", "cpp", "h"].iter().any(|known| e == *known)))
        .collect();
    for path in &paths {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            name.push(stem);
            read_folder(root, path, name, native, modules)?;
            name.pop();
        } else if path.extension().is_some_and(|e| e == "rs") {
            let mut module = read_file(path).map_err(|e| failed(path, &e))?;
            module.file = relative(root, path);
            if !module.beside.is_empty() {
                // The member's own build script compiles it.
                let member = name.first().map_or(root.to_path_buf(), |member| root.join("src").join(member));
                let extra = native.iter().map(|n| member.join(n)).filter(|path| path.exists());
                module.beside = foreign
                    .iter()
                    .map(|p| (*p).clone())
                    .chain(extra)
                    .map(|p| Ok((relative(root, &p), digest(&fs::read(&p)?))))
                    .collect::<io::Result<_>>()
                    .map_err(|e| failed(path, &e))?;
            }
            let root_file = stem == "mod" || (name.len() < 2 && stem == "lib");
            let own = if root_file { name.clone() } else { [name.as_slice(), &[stem]].concat() };
            modules.insert(own, module);
        }
    }
    Ok(())
}

fn relative(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).to_string_lossy().into_owned()
}

fn digest(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

fn read_file(path: &Path) -> Result<Module, Box<dyn std::error::Error>> {
    let mut file = syn::parse_file(&fs::read_to_string(path)?)?;
    let mut code = Code::default();
    code.visit_file_mut(&mut file);
    let mut items = BTreeSet::new();
    file.items.iter().for_each(|item| items.extend(name_of(item)));
    let tokens = file.to_token_stream();
    let mut paths = BTreeSet::new();
    scan(tokens.clone(), &mut paths);
    paths.extend(code.quoted);
    let mut text = String::new();
    write(tokens, &mut text);
    // Only a placeholder: `read_folder` fills it in.
    let beside = if code.foreign { vec![Default::default()] } else { vec![] };
    Ok(Module {
        file: String::new(),
        digest: digest(text.as_bytes()),
        children: BTreeSet::new(),
        aliases: code.aliases,
        globs: code.globs,
        imports: code.imports,
        paths,
        implemented: code.implemented,
        items,
        beside,
    })
}

fn name_of(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(i) => &i.ident,
        Item::Enum(i) => &i.ident,
        Item::Fn(i) => &i.sig.ident,
        Item::Mod(i) => &i.ident,
        Item::Static(i) => &i.ident,
        Item::Struct(i) => &i.ident,
        Item::Trait(i) => &i.ident,
        Item::Type(i) => &i.ident,
        Item::Macro(i) => i.ident.as_ref()?,
        _ => return None,
    };
    Some(ident.to_string())
}

/// Removes from a file what does not count, and records its imports.
#[derive(Default)]
struct Code {
    aliases: HashMap<String, Names>,
    globs: Vec<Names>,
    imports: Vec<Names>,
    implemented: Vec<Names>,
    quoted: Vec<Names>,
    foreign: bool,
}

impl Code {
    fn note_use(&mut self, tree: &UseTree, prefix: &mut Names, private: bool) {
        match tree {
            UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.note_use(&path.tree, prefix, private);
                prefix.pop();
            }
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.note_use(tree, prefix, private)),
            UseTree::Glob(_) => self.globs.push(prefix.clone()),
            UseTree::Name(name) => self.note_name(&name.ident.to_string(), &name.ident.to_string(), prefix, private),
            UseTree::Rename(name) => self.note_name(&name.ident.to_string(), &name.rename.to_string(), prefix, private),
        }
    }

    fn note_name(&mut self, name: &str, alias: &str, prefix: &Names, private: bool) {
        let mut path = prefix.clone();
        if name != "self" {
            path.push(name.into());
        }
        let alias = if alias == "self" { path.last().cloned().unwrap_or_default() } else { alias.into() };
        if private {
            self.imports.push(path.clone());
        }
        if alias != "_" && path.first() != Some(&alias) {
            self.aliases.insert(alias, path);
        }
    }

    /// Records the imports of an item. Returns whether the item counts.
    fn keep(&mut self, item: &Item) -> bool {
        match item {
            Item::Use(item) => {
                self.note_use(
                    &item.tree,
                    &mut vec![],
                    matches!(item.vis, Visibility::Inherited) && !is_test(&item.attrs),
                );
                false
            }
            Item::Mod(item) => item.content.is_some() && !is_test(&item.attrs),
            Item::Fn(item) => !is_test(&item.attrs),
            Item::ForeignMod(_) => {
                self.foreign = true;
                true
            }
            Item::Impl(item) => {
                let test = is_test(&item.attrs);
                if let (false, syn::Type::Path(path)) = (test, &*item.self_ty) {
                    self.implemented.push(path.path.segments.iter().map(|s| s.ident.to_string()).collect());
                }
                !test
            }
            _ => true,
        }
    }
}

/// Unwraps a block of a single expression: rustfmt adds and removes such braces.
fn unwrap_block(expr: &mut Expr) {
    if let Expr::Block(block) = expr
        && block.label.is_none()
        && block.attrs.is_empty()
        && let [Stmt::Expr(inner, end)] = block.block.stmts.as_slice()
        && (end.is_none() || leaves(inner))
    {
        *expr = inner.clone();
    }
}

/// Whether a semicolon after the expression is layout: rustfmt writes `else { return }` on one line, and `return;` on
/// its own line.
fn leaves(expr: &Expr) -> bool {
    matches!(expr, Expr::Return(_) | Expr::Break(_) | Expr::Continue(_))
}

impl VisitMut for Code {
    fn visit_file_mut(&mut self, file: &mut syn::File) {
        file.attrs.clear();
        file.items.retain(|item| self.keep(item));
        visit_mut::visit_file_mut(self, file);
    }

    fn visit_item_mod_mut(&mut self, item: &mut syn::ItemMod) {
        if let Some((_, items)) = &mut item.content {
            items.retain(|item| self.keep(item));
        }
        visit_mut::visit_item_mod_mut(self, item);
    }

    fn visit_item_impl_mut(&mut self, item: &mut syn::ItemImpl) {
        item.items.retain(|item| !matches!(item, syn::ImplItem::Fn(f) if is_test(&f.attrs)));
        visit_mut::visit_item_impl_mut(self, item);
    }

    fn visit_block_mut(&mut self, block: &mut syn::Block) {
        block.stmts.retain(|stmt| !matches!(stmt, Stmt::Item(item) if !self.keep(item)));
        if let Some(Stmt::Expr(last, end)) = block.stmts.last_mut()
            && leaves(last)
        {
            *end = None;
        }
        visit_mut::visit_block_mut(self, block);
    }

    fn visit_arm_mut(&mut self, arm: &mut syn::Arm) {
        unwrap_block(&mut arm.body);
        arm.comma = Some(Default::default());
        visit_mut::visit_arm_mut(self, arm);
    }

    fn visit_expr_closure_mut(&mut self, closure: &mut syn::ExprClosure) {
        unwrap_block(&mut closure.body);
        visit_mut::visit_expr_closure_mut(self, closure);
    }

    fn visit_attributes_mut(&mut self, attributes: &mut Vec<Attribute>) {
        // `expect` and `allow` only silence lints.
        let counts = |a: &Attribute| !["doc", "expect", "allow"].iter().any(|name| a.path().is_ident(name));
        attributes.retain(counts);
        for attribute in attributes.iter() {
            quoted(attribute.to_token_stream(), &mut self.quoted);
        }
    }
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|a| {
        a.path().is_ident("test")
            || (a.path().is_ident("cfg") && a.meta.to_token_stream().to_string().replace(' ', "") == "cfg(test)")
    })
}

/// Collects paths in the strings of an attribute: `#[serde(default = "super::rate")]`.
fn quoted(tokens: TokenStream, paths: &mut Vec<Names>) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => quoted(group.stream(), paths),
            TokenTree::Literal(literal) => {
                let text = literal.to_string();
                let names: Names = text.trim_matches('"').split("::").map(String::from).collect();
                if names.iter().all(|n| !n.is_empty() && n.chars().all(|c| c.is_alphanumeric() || c == '_')) {
                    paths.push(names);
                }
            }
            _ => {}
        }
    }
}

/// Collects every `a::b::c` in the tokens, including single names.
fn scan(tokens: TokenStream, paths: &mut BTreeSet<Names>) {
    let mut path: Names = vec![];
    let mut colons = 0;
    for token in tokens {
        match token {
            TokenTree::Ident(ident) => {
                if colons != 2 && !path.is_empty() {
                    paths.insert(std::mem::take(&mut path));
                }
                path.push(ident.to_string());
                colons = 0;
            }
            TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
            other => {
                if !path.is_empty() {
                    paths.insert(std::mem::take(&mut path));
                }
                colons = 0;
                if let TokenTree::Group(group) = other {
                    scan(group.stream(), paths);
                }
            }
        }
    }
    if !path.is_empty() {
        paths.insert(path);
    }
}

/// Whether the token closes a list of generic arguments, which is not a token group.
fn closes(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == '>')
}

/// Writes the tokens one after the other. A comma before a closing bracket is layout, and is left out.
fn write(tokens: TokenStream, text: &mut String) {
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::None => ("", ""),
                };
                text.push_str(open);
                write(group.stream(), text);
                text.push_str(close);
            }
            TokenTree::Punct(punct) if punct.as_char() == ',' && tokens.peek().is_none_or(closes) => {}
            TokenTree::Punct(punct) => text.push(punct.as_char()),
            other => {
                text.push(' ');
                text.push_str(&other.to_string());
                text.push(' ');
            }
        }
    }
}
