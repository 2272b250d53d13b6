//! The code that implements a stage kind, as far as it affects keys.
//!
//! For each kind, the build embeds a digest of all source that the kind's code reaches inside the workspace, and of the
//! versions of its dependencies (`build/source.rs`). The file `code.lock` holds the acknowledged digests. While the two
//! differ, the digest is part of the key: an edited helper reruns the stages that use it, and there are no stale hits.

use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap},
    sync::OnceLock,
};

/// The code of one kind, as it was built.
#[derive(Debug)]
pub struct Code {
    /// The stage kind.
    pub kind: &'static str,
    /// The digest of all parts, in hexadecimal digits.
    pub digest: &'static str,
    /// Files and the start of their digests, crates and their versions.
    pub parts: &'static [(&'static str, &'static str)],
}

/// The code of every kind, and the lock as of the build.
#[derive(Debug, Default)]
pub struct Codebase {
    kinds: &'static [Code],
    lock: &'static str,
    /// The text of `Cargo.lock`.
    pub crates: &'static str,
    /// Kinds whose code the lock does not acknowledge.
    differing: OnceLock<HashMap<&'static str, &'static str>>,
}

impl Codebase {
    /// The code of these kinds, and the texts of `code.lock` and `Cargo.lock`.
    pub const fn new(kinds: &'static [Code], lock: &'static str, crates: &'static str) -> Self {
        Codebase { kinds, lock, crates, differing: OnceLock::new() }
    }

    /// The code of every kind.
    pub fn kinds(&self) -> &'static [Code] {
        self.kinds
    }

    /// Parses the lock.
    pub fn lock(&self) -> Result<Lock, ron::error::SpannedError> {
        Lock::parse(self.lock)
    }

    /// The text of the lock.
    pub fn lock_text(&self) -> &'static str {
        self.lock
    }

    /// The digest of a kind's code.
    pub fn digest(&self, kind: &str) -> Option<&'static str> {
        self.kinds.iter().find(|code| code.kind == kind).map(|code| code.digest)
    }

    /// The digest of a kind's code if `code.lock` does not acknowledge it. It is then part of the key.
    pub fn unacknowledged(&self, kind: &str) -> Option<&'static str> {
        let differing = || {
            // A lock that cannot be parsed acknowledges nothing; `caco code status` reports it.
            let lock = self.lock().unwrap_or_default();
            let same = |code: &&Code| lock.kinds.get(code.kind).is_some_and(|known| known.digest == code.digest);
            self.kinds.iter().filter(|code| !same(code)).map(|code| (code.kind, code.digest)).collect()
        };
        self.differing.get_or_init(differing).get(kind).copied()
    }
}

/// The file `code.lock`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// The acknowledged code, by kind.
    pub kinds: BTreeMap<String, Acknowledged>,
}

/// The acknowledged code of a kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Acknowledged {
    /// The kind's declared version.
    pub version: u32,
    /// The digest of its code.
    pub digest: String,
    /// Why this code gives the results of its version.
    pub because: String,
    /// Its parts: files and the start of their digests, crates and their versions.
    pub parts: BTreeMap<String, String>,
}

/// The header comment of the file.
const HEAD: &str = "\
// Per stage kind: the code that gives the results of its version. Written by `caco code accept KIND --because \"…\"`;
// see `caco code status`. On a merge conflict take either side, build, and look at the status.
";

impl Lock {
    /// Parses the text of a lock.
    pub fn parse(text: &str) -> Result<Lock, ron::error::SpannedError> {
        if text.trim().is_empty() { Ok(Lock::default()) } else { ron::from_str(text) }
    }

    /// The text of the file.
    pub fn text(&self) -> String {
        let pretty = ron::ser::PrettyConfig::new().new_line("\n");
        let body = ron::ser::to_string_pretty(self, pretty).expect("plain data is RON");
        format!("{HEAD}{body}\n")
    }

    /// Acknowledges a kind's code as of the build.
    pub fn accept(&mut self, code: &Code, version: u32, because: &str) {
        let parts = code.parts.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let acknowledged = Acknowledged { version, digest: code.digest.into(), because: because.into(), parts };
        self.kinds.insert(code.kind.into(), acknowledged);
    }
}

/// The differences between the acknowledged parts and those of the build, each with a description.
pub fn changes(known: &Acknowledged, code: &Code) -> Vec<(String, String)> {
    let now: BTreeMap<&str, &str> = code.parts.iter().copied().collect();
    let mut changes = vec![];
    for (name, value) in &now {
        match known.parts.get(*name) {
            None => changes.push((name.to_string(), "is new".into())),
            Some(before) if before != value && name.contains('/') => {
                changes.push((name.to_string(), "was edited".into()));
            }
            Some(before) if before != value => changes.push((name.to_string(), format!("{before} → {value}"))),
            Some(_) => {}
        }
    }
    let gone = known.parts.keys().filter(|name| !now.contains_key(name.as_str()));
    changes.extend(gone.map(|name| (name.clone(), "is no longer reached".into())));
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODE: Code = Code {
        kind: "k",
        digest: "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
        parts: &[("serde", "1.0.2"), ("src/a.rs", "aa"), ("src/b.rs", "bb")],
    };

    #[test]
    fn an_accepted_lock_round_trips() {
        let mut lock = Lock::default();
        lock.accept(&CODE, 3, "a \"reason\"");
        assert_eq!(Lock::parse(&lock.text()).unwrap(), lock);
        assert_eq!(lock.kinds["k"].digest, CODE.digest);
    }

    #[test]
    fn every_changed_part_is_listed() {
        let mut lock = Lock::default();
        lock.accept(&CODE, 1, "");
        let now = Code { parts: &[("serde", "1.0.3"), ("src/a.rs", "ab"), ("src/c.rs", "cc")], ..CODE };
        let listed: Vec<String> = changes(&lock.kinds["k"], &now).iter().map(|(n, w)| format!("{n} {w}")).collect();
        assert_eq!(
            listed,
            ["serde 1.0.2 → 1.0.3", "src/a.rs was edited", "src/c.rs is new", "src/b.rs is no longer reached"]
        );
    }
}
