//! The invariants of ARCHITECTURE.md, read off the `use` lines and paths of the source.

use std::{
    fs,
    path::{Path, PathBuf},
};

fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = vec![];
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
    found.sort();
    found
}

/// The crate's modules that a file names outside comments and outside its tests: `crate::a`, and `crate::{a, b::{…}}`.
fn named_modules(text: &str) -> Vec<String> {
    let code: String = text
        .split("#[cfg(test)]")
        .next()
        .unwrap()
        .lines()
        .filter(|l| !l.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n");
    let mut modules = vec![];
    for after in code.split("crate::").skip(1) {
        match after.strip_prefix('{') {
            Some(group) => {
                let mut depth = 0;
                let mut word = String::new();
                let mut fresh = true;
                for c in group.chars() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => {
                            modules.push(std::mem::take(&mut word));
                            fresh = true;
                            continue;
                        }
                        _ => {}
                    }
                    if depth == 0 && fresh && (c.is_alphanumeric() || c == '_') {
                        word.push(c);
                    } else if !c.is_whitespace() {
                        fresh = false;
                    }
                }
                modules.push(word);
            }
            None => modules.push(after.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()),
        }
    }
    modules.retain(|m| !m.is_empty());
    modules
}

fn check(folder: &str, allowed: &[&str]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let path = root.join(folder);
    let files = if path.is_dir() {
        sources(&path)
    } else {
        vec![(path.with_extension("rs"), fs::read_to_string(path.with_extension("rs")).unwrap())]
    };
    for (file, text) in files {
        for module in named_modules(&text) {
            assert!(
                allowed.contains(&module.as_str()),
                "{} names crate::{module}; {folder} may name {allowed:?}",
                file.display()
            );
        }
    }
}

#[test]
fn modules_name_only_what_they_may() {
    check("rng", &[]);
    check("metric", &["interval"]);
    check("interval", &["rng"]);
    check("schedule", &[]);
    check("catalog", &["catalog", "spec"]);
    check("pth", &["tensors"]);
    check("score", &[]);
    check("predictions", &["metric", "interval", "score"]);
    check("report", &["metric", "interval", "predictions", "score", "spec"]);
    check("provenance", &["engine", "metric", "predictions", "provenance", "report", "spec"]);
    check("spec", &["spec", "rng"]);
    check("display", &["engine", "job"]);
    check("engine", &["engine", "spec", "job", "metric"]);
}

#[test]
fn the_engine_has_never_heard_of_tensors() {
    let engine = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/engine");
    for (file, text) in sources(&engine) {
        let code = text.replace("tensors:", "").replace("tensor stages", "");
        for word in ["tch::", "torch_sys", "safetensors"] {
            assert!(!code.contains(word), "{} names {word}", file.display());
        }
    }
}

#[test]
fn randomness_and_time_come_from_one_place() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for (file, text) in sources(&src) {
        for word in ["thread_rng", "rand::random", "from_entropy"] {
            assert!(!text.contains(word), "{} names {word}", file.display());
        }
        let experiment = ["data", "model", "train", "eval"].iter().any(|m| file.starts_with(src.join(m)));
        assert!(!experiment || !text.contains("SystemTime"), "{} reads the clock", file.display());
    }
}

#[test]
fn the_runner_does_not_load_libtorch() {
    let program = fs::read(crate::project::caco_path()).unwrap();
    for library in ["libtorch_cpu.so", "libtorch.so", "libc10.so"] {
        let needed = program.windows(library.len()).any(|w| w == library.as_bytes());
        assert!(!needed, "caco is linked to {library}");
    }
}
