//! code.lock: what a stage kind's code reaches, and how it is acknowledged.

#[path = "../../build/source.rs"]
#[allow(dead_code, reason = "the build script's own")]
mod source;

use crate::project::Project;
use source::{Crate, Reach};
use std::{fs, path::Path, process::Command};

const FILES: [(&str, &str); 8] = [
    ("src/lib.rs", "pub mod stages; pub mod train; pub mod rng; pub mod bridge;"),
    ("src/stages/mod.rs", "mod pretrain; mod knn; pub fn dispatch() { pretrain::run(); knn::run() }"),
    ("src/stages/pretrain.rs", "use crate::train::Fit; pub fn run() { Fit::new(1).go() }"),
    ("src/stages/knn.rs", "pub(super) const N: u32 = 1; pub fn run() { crate::bridge::norm() }"),
    ("src/train/mod.rs", "mod fit; mod pace; pub use fit::Fit; pub use pace::*;"),
    (
        "src/train/fit.rs",
        "use super::*;\n/// Fits.\n#[derive(Debug)] pub struct Fit { #[serde(default = \"crate::rng::draw\")] pub a: u32 }\nimpl Fit { pub fn new(a: u32) -> Fit { match a { 0 => Fit { a: 1 }, a => Fit { a } } } }",
    ),
    ("src/train/pace.rs", "use super::Fit; impl Fit { pub fn go(&self) {} } pub struct Pace;"),
    ("src/rng.rs", "pub fn draw() -> u32 { rand_like::draw() }"),
];

/// What a module of a small crate reaches, after some edits.
fn reach(edits: &[(&str, &str)], root: &[&str]) -> Reach {
    let folder = tempfile::tempdir().unwrap();
    let native =
        [("src/bridge.rs", "unsafe extern \"C\" { pub fn norm(); }"), ("src/bridge.cpp", "int x;"), ("native.rs", "")];
    for (path, text) in FILES.iter().chain(&native).chain(edits) {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let root = root.iter().map(ToString::to_string).collect();
    Crate::read(folder.path(), &["native.rs"]).unwrap().reach(&[root])
}

fn names(reach: &Reach) -> Vec<&str> {
    reach.files.keys().map(String::as_str).collect()
}

#[test]
fn a_module_reaches_what_it_names() {
    let pretrain = reach(&[], &["stages", "pretrain"]);
    // `pace` is not named, but implements a method that is called; the sibling `knn` is not reached.
    assert_eq!(names(&pretrain), ["src/rng.rs", "src/stages/pretrain.rs", "src/train/fit.rs", "src/train/pace.rs"]);
    assert!(pretrain.crates.contains("rand_like"));
    let knn = reach(&[], &["stages", "knn"]);
    assert_eq!(names(&knn), ["native.rs", "src/bridge.cpp", "src/bridge.rs", "src/stages/knn.rs"]);
}

#[test]
fn a_member_reaches_what_it_names_in_another() {
    let members = [
        ("src/work/lib.rs", "pub mod stages;"),
        ("src/work/stages.rs", "use caco_words::Word; pub fn run() { Word::new(); crate::help::help() }"),
        ("src/work/help.rs", "pub fn help() {}"),
        ("src/words/lib.rs", "mod word; mod other; pub use word::Word; pub use other::Other;"),
        ("src/words/word.rs", "pub struct Word;"),
        ("src/words/other.rs", "pub struct Other;"),
    ];
    let glob = ("src/work/glob.rs", "use caco_words::*; pub fn run() { Other }");
    let found = reach(&[&members[..], &[glob]].concat(), &["work", "glob"]);
    assert_eq!(names(&found), ["src/words/other.rs", "src/work/glob.rs"]);
    let found = reach(&members, &["work", "stages"]);
    assert_eq!(names(&found), ["src/words/word.rs", "src/work/help.rs", "src/work/stages.rs"]);
    assert!(found.crates.is_empty(), "{:?}", found.crates);
}

#[test]
fn a_field_called_like_a_module_reaches_nothing() {
    let files = [
        ("src/kinds/lib.rs", "mod knn; mod index; pub use knn::Knn; pub use index::Index;"),
        ("src/kinds/knn.rs", "use super::*; pub struct Knn { index: u32 } impl Knn { fn go(&self) { self.index; } }"),
        ("src/kinds/index.rs", "use super::*; pub struct Index { of: Knn }"),
    ];
    assert_eq!(names(&reach(&files, &["kinds", "knn"])), ["src/kinds/knn.rs"]);
    assert_eq!(names(&reach(&files, &["kinds", "index"])), ["src/kinds/index.rs", "src/kinds/knn.rs"]);
}

#[test]
fn layout_comments_tests_and_imports_do_not_count() {
    let before = reach(&[], &["stages", "pretrain"]);
    let fit = r##"
        //! Another comment.
        use super::*;
        use std::fmt; // unused
        #[derive(Debug,)]
        #[allow(dead_code)]
        pub struct Fit { #[serde(default = "crate::rng::draw")] pub a: u32, }
        impl Fit {
            /** Says more. */
            pub fn new(a: u32,) -> Fit {
                match a {
                    0 => { Fit { a: 1, } }
                    a => Fit { a }
                }
            }
        }
        #[cfg(test)]
        mod tests { #[test] fn t() { panic!() } }
    "##;
    assert_eq!(reach(&[("src/train/fit.rs", fit)], &["stages", "pretrain"]).files, before.files);
}

#[test]
fn an_edit_moves_what_reaches_it_and_nothing_else() {
    let edits = [
        ("src/train/fit.rs", FILES[5].1.replace("Fit { a: 1 }", "Fit { a: 2 }")),
        ("src/train/pace.rs", FILES[6].1.replace("{}", "{ panic!() }")),
        ("src/rng.rs", "pub fn draw() -> u32 { 4 }".into()),
    ];
    for (path, text) in &edits {
        assert_ne!(text, FILES.iter().find(|f| f.0 == *path).unwrap().1);
        assert_ne!(reach(&[(path, text)], &["stages", "pretrain"]), reach(&[], &["stages", "pretrain"]), "{path}");
        assert_eq!(reach(&[(path, text)], &["stages", "knn"]), reach(&[], &["stages", "knn"]), "{path}");
    }
    for path in ["src/bridge.cpp", "native.rs"] {
        assert_ne!(reach(&[(path, "edited")], &["stages", "knn"]), reach(&[], &["stages", "knn"]), "{path}");
    }
}

#[test]
fn a_new_stage_kind_moves_no_other() {
    let edits = [
        (
            "src/stages/mod.rs",
            "mod pretrain; mod knn; mod new; pub fn dispatch() { pretrain::run(); knn::run(); new::run() }",
        ),
        ("src/stages/new.rs", "pub fn run() {}"),
    ];
    assert_eq!(reach(&edits, &["stages", "pretrain"]), reach(&[], &["stages", "pretrain"]));
}

/// The oracle for layout: rustfmt itself, configured for narrow lines, over the real source.
#[test]
fn rustfmt_moves_no_digest() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().unwrap();
    copy(&package.join("src"), &folder.path().join("src"));
    let digests = || {
        let source = Crate::read(folder.path(), &[]).unwrap();
        let kinds = ["command", "index", "knn", "linear_eval", "pretrain", "compare", "transfer_eval"];
        kinds.map(|kind| {
            source.reach(&[
                vec!["kinds".into(), kind.into()],
                vec!["pipeline".into(), "kind".into(), kind.into()],
                vec!["engine".into(), kind.into()],
                vec!["worker".into(), "stages".into(), kind.into()],
            ])
        })
    };
    let before = digests();
    let narrow = ["--edition", "2024", "--config", "max_width=60,use_small_heuristics=Off"];
    let members = glob::glob(folder.path().join("src/*/lib.rs").to_str().unwrap()).unwrap().map(Result::unwrap);
    match Command::new("rustfmt").args(narrow).args(members).status() {
        Ok(status) => assert!(status.success()),
        Err(e) => return eprintln!("skipped: rustfmt cannot be started: {e}"),
    }
    for (before, after) in before.iter().zip(digests()) {
        assert!(before.files.len() > 2, "{:?}", before.files);
        let moved: Vec<_> =
            before.files.iter().filter(|(name, digest)| after.files.get(*name) != Some(digest)).collect();
        assert!(moved.is_empty(), "{moved:?}");
        assert_eq!(before.crates, after.crates);
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn code_is_acknowledged_with_a_reason_in_its_source_folder() {
    let project = Project::with("(stages: {})");
    let refused = project.caco(&["code", "accept", "knn", "--because", "a refactoring"]);
    assert!(refused.code == 1 && refused.err.contains("no caco source here"), "{}", refused.err);
    project.write("Cargo.toml", "[package]\nname = \"caco\"\n");
    let unknown = project.caco(&["code", "accept", "kn", "--because", "x"]);
    assert!(unknown.code == 1 && unknown.err.contains("'knn'"), "{}", unknown.err);
    let empty = project.caco(&["code", "accept", "knn", "--because", " "]);
    assert!(empty.code == 1 && empty.err.contains("--because is empty"), "{}", empty.err);
    project.ok(&["code", "accept", "knn", "--because", "a refactoring"]);
    project.ok(&["code", "accept", "index", "--because", "another"]);
    let lock = fs::read_to_string(project.path().join("code.lock")).unwrap();
    for part in ["\"knn\": (", "because: \"a refactoring\"", "\"index\": (", "\"src/worker/stages/knn.rs\""] {
        assert!(lock.contains(part), "no {part} in\n{lock}");
    }
    project.write("code.lock", "(kinds: {");
    let damaged = project.caco(&["code", "accept", "knn", "--because", "x"]);
    assert!(damaged.code == 1 && damaged.err.contains("git checkout code.lock"), "{}", damaged.err);
}

#[test]
fn a_command_reaches_nothing_of_the_experiment() {
    let json = Project::new().json(&["code", "status", "--json"]);
    let text = json.to_string();
    assert!(text.contains("command"), "{text}");
    let lock = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("code.lock")).unwrap();
    let command = lock.split("\"command\": (").nth(1).unwrap().split("\"compare\"").next().unwrap();
    for part in ["src/data", "src/worker", "src/learn", "src/engine/run.rs", "src/engine/store"] {
        assert!(!command.contains(part), "the code of kind 'command' reaches {part}");
    }
    let compare = lock.split("\"compare\": (").nth(1).unwrap().split("\"export_weights\"").next().unwrap();
    for part in ["src/learn", "src/data/", "src/kinds/pretrain.rs", "src/pipeline/job.rs"] {
        assert!(!compare.contains(part), "the code of kind 'compare' reaches {part}");
    }
}
