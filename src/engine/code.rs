//! The code that computes a stage kind, as far as keys are concerned.
//!
//! The build embeds, per kind, a digest of all source that the kind's code reaches inside the crate and of the versions
//! of the crates it computes with (`build/source.rs`). The file `code.lock` holds the digests that somebody vouched for.
//! While the two differ, the digest joins the key: an edited helper reruns what uses it, and nothing stale is hit.

use super::digest::Digest;
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
    digest: &'static str,
    /// Files and the start of their digests, crates and their versions.
    pub parts: &'static [(&'static str, &'static str)],
}

include!(concat!(env!("OUT_DIR"), "/code.rs"));

impl Code {
    /// The digest of all parts.
    pub fn digest(&self) -> Digest {
        self.digest.parse().expect("the build wrote a digest")
    }
}

/// The file `code.lock`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// What is acknowledged, by kind.
    pub kinds: BTreeMap<String, Acknowledged>,
}

/// The code of a kind that somebody vouched for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Acknowledged {
    /// The kind's declared version.
    pub version: u32,
    /// The digest of its code.
    pub digest: Digest,
    /// Why this code gives the results of its version.
    pub because: String,
    /// Its parts: files and the start of their digests, crates and their versions.
    pub parts: BTreeMap<String, String>,
}

/// Opens the file, for whoever looks into it.
const HEAD: &str = "\
// Per stage kind: the code that gives the results of its version. Written by `caco code accept KIND --because \"…\"`;
// see `caco code status`. On a merge conflict take either side, build, and look at the status.
";

impl Lock {
    /// Reads a lock's text.
    pub fn parse(text: &str) -> Result<Lock, ron::error::SpannedError> {
        if text.trim().is_empty() { Ok(Lock::default()) } else { ron::from_str(text) }
    }

    /// The text of the file.
    pub fn text(&self) -> String {
        let pretty = ron::ser::PrettyConfig::new().new_line("\n");
        let body = ron::ser::to_string_pretty(self, pretty).expect("plain data is RON");
        format!("{HEAD}{body}\n")
    }

    /// Acknowledges a kind's code as it was built.
    pub fn accept(&mut self, code: &Code, version: u32, because: &str) {
        let parts = code.parts.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let acknowledged = Acknowledged { version, digest: code.digest(), because: because.into(), parts };
        self.kinds.insert(code.kind.into(), acknowledged);
    }
}

/// The code of every kind.
pub fn kinds() -> &'static [Code] {
    KINDS
}

/// The lock that was there when this program was built. Err: it is no lock.
pub fn lock() -> Result<Lock, ron::error::SpannedError> {
    Lock::parse(LOCK)
}

/// The text of the lock that was there when this program was built.
pub fn lock_text() -> &'static str {
    LOCK
}

/// The digest of a kind's code.
pub fn digest(kind: &str) -> Option<Digest> {
    KINDS.iter().find(|code| code.kind == kind).map(Code::digest)
}

/// The digest of a kind's code where it is not the one that `code.lock` acknowledges: it then joins the key.
pub fn unacknowledged(kind: &str) -> Option<Digest> {
    static DIFFERING: OnceLock<HashMap<&str, Digest>> = OnceLock::new();
    let differing = || {
        // A lock that cannot be read acknowledges nothing; `caco code status` says so.
        let lock = lock().unwrap_or_default();
        let same = |code: &&Code| lock.kinds.get(code.kind).is_some_and(|known| known.digest == code.digest());
        KINDS.iter().filter(|code| !same(code)).map(|code| (code.kind, code.digest())).collect()
    };
    DIFFERING.get_or_init(differing).get(kind).copied()
}

/// What differs between the parts that were acknowledged and those that were built, each with a word.
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
    fn what_is_accepted_is_read_again() {
        let mut lock = Lock::default();
        lock.accept(&CODE, 3, "a \"reason\"");
        assert_eq!(Lock::parse(&lock.text()).unwrap(), lock);
        assert_eq!(lock.kinds["k"].digest, CODE.digest());
    }

    #[test]
    fn every_changed_part_is_told() {
        let mut lock = Lock::default();
        lock.accept(&CODE, 1, "");
        let now = Code { parts: &[("serde", "1.0.3"), ("src/a.rs", "ab"), ("src/c.rs", "cc")], ..CODE };
        let told: Vec<String> = changes(&lock.kinds["k"], &now).iter().map(|(n, w)| format!("{n} {w}")).collect();
        assert_eq!(
            told,
            ["serde 1.0.2 → 1.0.3", "src/a.rs was edited", "src/c.rs is new", "src/b.rs is no longer reached"]
        );
    }

    #[test]
    fn every_kind_has_its_code() {
        for entry in crate::spec::kind::registry::kinds() {
            let code = kinds().iter().find(|code| code.kind == entry.name);
            assert!(code.is_some_and(|c| c.parts.len() > 2), "{} has no code in build/code.rs", entry.name);
        }
    }
}
