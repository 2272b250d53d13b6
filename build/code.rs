//! The digest of the code behind each stage kind, for `engine/code.rs` to embed.

use crate::source::{Crate, Reach};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    path::Path,
};

/// What the compiled C and C++ depends on besides its own source.
const NATIVE: [&str; 1] = ["build.rs"];
/// Crates for errors, messages and help texts, which affect no result.
const TALK: [&str; 4] = ["anyhow", "schemars", "thiserror", "tracing"];
/// Folders in which the module named after a kind implements it.
const PLACES: [&str; 4] = ["kinds", "pipeline/kind", "worker/stages", "engine"];
/// Folders in which kinds are declared.
const FOLDERS: [&str; 2] = ["src/kinds", "src/pipeline/kind"];

/// Writes `$OUT_DIR/code.rs`.
pub fn embed(root: &Path) -> Result<(), String> {
    for watched in ["src", "Cargo.lock", "code.lock"] {
        println!("cargo:rerun-if-changed={watched}");
    }
    let text = table(&kinds(root)?);
    let lock = root.join("code.lock");
    let lock = if lock.exists() { format!("include_str!({:?})", lock.display().to_string()) } else { "\"\"".into() };
    let out = std::env::var("OUT_DIR").map_err(|e| e.to_string())?;
    let text = format!("{text}\nconst LOCK: &str = {lock};\n");
    fs::write(Path::new(&out).join("code.rs"), text).map_err(|e| format!("cannot write code.rs: {e}"))
}

/// The parts of each kind, with their digests or versions.
type Kinds = BTreeMap<String, BTreeMap<String, String>>;

/// Finds every stage kind of the crate at `root`, with the parts of its code.
pub fn kinds(root: &Path) -> Result<Kinds, String> {
    let source = Crate::read(root, &NATIVE)?;
    let locked = Locked::read(&root.join("Cargo.lock"))?;
    let mut kinds = Kinds::new();
    let mut files = vec![];
    for folder in FOLDERS.map(|folder| root.join(folder)) {
        let entries = fs::read_dir(&folder).map_err(|e| format!("cannot read {}: {e}", folder.display()))?;
        files.extend(entries.flatten().map(|e| e.path()).filter(|path| path.extension().is_some_and(|e| e == "rs")));
    }
    for path in files {
        let text = fs::read_to_string(&path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
        let name = text.split("const NAME: &'static str = \"").nth(1).and_then(|rest| rest.split('"').next());
        let (Some(name), Some(stem)) = (name, path.file_stem()) else { continue };
        let stem = stem.to_string_lossy();
        let module = |place: &&str| place.split('/').map(String::from).chain([stem.to_string()]).collect::<Vec<_>>();
        let roots: Vec<_> = PLACES.iter().map(module).collect();
        kinds.insert(name.into(), parts(&source.reach(&roots), &locked));
    }
    Ok(kinds)
}

fn parts(reach: &Reach, locked: &Locked) -> BTreeMap<String, String> {
    let short = |value: &String| value[..12].to_string();
    let mut parts: BTreeMap<String, String> =
        reach.files.iter().map(|(name, digest)| (name.clone(), short(digest))).collect();
    // `src/learn/…` belongs to the package `caco-learn`.
    let member =
        |file: &String| Some(format!("caco-{}", file.strip_prefix("src/")?.split('/').next()?.replace('_', "-")));
    let members: BTreeSet<String> = parts.keys().filter_map(member).collect();
    let native = parts.keys().any(|name| NATIVE.iter().any(|native| name.ends_with(&format!("/{native}"))));
    parts.extend(locked.computing(&members, &reach.crates, native));
    parts
}

fn table(kinds: &Kinds) -> String {
    let mut text = String::from("const KINDS: &[Code] = &[\n");
    for (kind, parts) in kinds {
        let mut all = blake3::Hasher::new();
        parts.iter().for_each(|(name, value)| _ = all.update(format!("{value} {name}\n").as_bytes()));
        let parts: Vec<(&String, &String)> = parts.iter().collect();
        writeln!(text, "    Code {{ kind: {kind:?}, digest: \"{}\", parts: &{parts:?} }},", all.finalize().to_hex())
            .expect("a string takes all text");
    }
    text.push_str("];\n");
    text
}

/// The packages of Cargo.lock.
struct Locked {
    packages: BTreeMap<String, Vec<Package>>,
}

struct Package {
    version: String,
    dependencies: Vec<String>,
}

impl Locked {
    fn read(path: &Path) -> Result<Locked, String> {
        let failed = |e: &dyn std::fmt::Display| format!("cannot read {}: {e}", path.display());
        let text = fs::read_to_string(path).map_err(|e| failed(&e))?;
        let lock: toml::Table = text.parse().map_err(|e| failed(&e))?;
        let mut packages: BTreeMap<String, Vec<Package>> = BTreeMap::new();
        for package in lock.get("package").and_then(|p| p.as_array()).into_iter().flatten() {
            let field = |name: &str| package.get(name).and_then(|v| v.as_str()).unwrap_or_default().to_string();
            let dependencies = package.get("dependencies").and_then(|d| d.as_array()).into_iter().flatten();
            let dependencies = dependencies.filter_map(|d| d.as_str().map(String::from)).collect();
            packages.entry(field("name")).or_default().push(Package { version: field("version"), dependencies });
        }
        Ok(Locked { packages })
    }

    /// Maps each crate in `names` (as in paths) that the `members` depend on to its version and a digest of the
    /// versions of its transitive dependencies. C and C++ is compiled against the `-sys` crates without naming them.
    fn computing(
        &self,
        members: &BTreeSet<String>,
        names: &BTreeSet<String>,
        native: bool,
    ) -> BTreeMap<String, String> {
        let packages = members.iter().filter_map(|member| self.packages.get(member));
        let own = packages.flatten().flat_map(|p| &p.dependencies);
        let named = |d: &&String| {
            let name = name_of(d);
            (names.contains(&name.replace('-', "_")) || (native && name.ends_with("-sys"))) && !TALK.contains(&name)
        };
        let value = |dependency: &String| {
            let mut found = BTreeSet::new();
            self.collect(dependency, &mut found);
            let below: String = found.iter().map(|(name, version)| format!("{name} {version}\n")).collect();
            let version = self.find(dependency).map_or("", |p| &p.version);
            (name_of(dependency).to_string(), format!("{version} {}", &blake3::hash(below.as_bytes()).to_hex()[..8]))
        };
        own.filter(named).map(value).collect()
    }

    fn collect<'l>(&'l self, dependency: &'l str, found: &mut BTreeSet<(&'l str, &'l str)>) {
        let Some(package) = self.find(dependency) else { return };
        if found.insert((name_of(dependency), &package.version)) {
            package.dependencies.iter().for_each(|below| self.collect(below, found));
        }
    }

    /// Finds the package of `name` or, if there are several versions, of `name version`.
    fn find(&self, dependency: &str) -> Option<&Package> {
        let version = dependency.split(' ').nth(1);
        self.packages.get(name_of(dependency))?.iter().find(|p| version.is_none_or(|v| v == p.version))
    }
}

/// `name version` → `name`.
fn name_of(dependency: &str) -> &str {
    dependency.split(' ').next().unwrap_or(dependency)
}
