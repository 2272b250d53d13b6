//! Explains why a stage runs: the difference between two preimages, field by field.

use super::{digest::Digest, key::Preimage};
use serde::Serialize;
use serde_json::Value;
use std::{collections::BTreeSet, fmt};

/// One difference.
#[derive(Clone, Debug, PartialEq, Serialize, schemars::JsonSchema)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Change {
    /// The stage never ran, or has no earlier record.
    New,
    /// The stage is of another kind.
    Kind {
        /// The kind before.
        old: String,
        /// The kind now.
        new: String,
    },
    /// The kind's declared version.
    Version {
        /// The kind.
        kind: String,
        /// The version before.
        old: u32,
        /// The version now.
        new: u32,
    },
    /// The kind's code has changed, and either the old or the new code is not acknowledged.
    Code {
        /// The kind.
        kind: String,
        /// The digest before.
        old: Option<Digest>,
        /// The digest now.
        new: Option<Digest>,
    },
    /// A parameter.
    Parameter {
        /// Its dotted path.
        field: String,
        /// Its value before, or `None` if it was not set.
        old: Option<Value>,
        /// Its value now.
        new: Option<Value>,
    },
    /// An input's content.
    Input {
        /// The stage's name for it.
        slot: String,
        /// Its digest before.
        old: Option<Digest>,
        /// Its digest now.
        new: Option<Digest>,
        /// If it is a folder, the files that differ: path and what happened.
        files: Vec<(String, String)>,
    },
    /// Whether an input file is executable.
    Mode {
        /// The stage's name for it.
        slot: String,
        /// Whether it was.
        old: bool,
        /// Whether it is now.
        new: bool,
    },
    /// A pinned value.
    Pin {
        /// Its name.
        name: String,
        /// Its value before.
        old: Option<String>,
        /// Its value now.
        new: Option<String>,
    },
    /// The result is no longer in the store, or is damaged.
    Gone,
    /// The user requested it with `--force`.
    Forced,
}

/// All differences between two preimages.
pub fn changes(old: &Preimage, new: &Preimage) -> Vec<Change> {
    let mut changes = vec![];
    if old.kind != new.kind {
        return vec![Change::Kind { old: old.kind.clone(), new: new.kind.clone() }];
    }
    if old.version != new.version {
        changes.push(Change::Version { kind: new.kind.clone(), old: old.version, new: new.version });
    }
    if old.code != new.code {
        changes.push(Change::Code { kind: new.kind.clone(), old: old.code, new: new.code });
    }
    parameters("", Some(&old.parameters), Some(&new.parameters), &mut changes);
    for name in old.pin.keys().chain(new.pin.keys()).collect::<BTreeSet<_>>() {
        let (old, new) = (old.pin.get(name).cloned(), new.pin.get(name).cloned());
        if old != new {
            changes.push(Change::Pin { name: name.clone(), old, new });
        }
    }
    let runs = |preimage: &Preimage, slot: &String| preimage.executable.contains(slot);
    for slot in old.inputs.keys().chain(new.inputs.keys()).collect::<BTreeSet<_>>() {
        let (before, now) = (old.inputs.get(slot).copied(), new.inputs.get(slot).copied());
        if before != now {
            changes.push(Change::Input { slot: slot.clone(), old: before, new: now, files: vec![] });
        }
        let (before, now) = (runs(old, slot), runs(new, slot));
        if before != now {
            changes.push(Change::Mode { slot: slot.clone(), old: before, new: now });
        }
    }
    changes
}

fn parameters(path: &str, old: Option<&Value>, new: Option<&Value>, changes: &mut Vec<Change>) {
    if old == new {
        return;
    }
    let join = |key: &str| if path.is_empty() { key.to_string() } else { format!("{path}.{key}") };
    match (old, new) {
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            for key in a.keys().chain(b.keys()).collect::<BTreeSet<_>>() {
                parameters(&join(key), a.get(key), b.get(key), changes);
            }
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) if a.len() == b.len() => {
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                parameters(&format!("{path}[{i}]"), Some(a), Some(b), changes);
            }
        }
        _ => changes.push(Change::Parameter { field: path.into(), old: old.cloned(), new: new.cloned() }),
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        fn value<T: fmt::Display>(v: &Option<T>) -> String {
            v.as_ref().map_or("(not set)".into(), ToString::to_string)
        }
        let digest = |d: &Option<Digest>| d.as_ref().map_or("(none)".into(), Digest::short);
        match self {
            Change::New => write!(f, "it has no earlier result here"),
            Change::Kind { old, new } => write!(f, "kind: {old} → {new}"),
            Change::Version { kind, old, new } => write!(f, "code of {kind}: version {old} → {new}"),
            Change::Code { kind, old, new } => {
                write!(f, "code of {kind}: {} → {}, not acknowledged", digest(old), digest(new))
            }
            Change::Parameter { field, old, new } => write!(f, "{field}: {} → {}", value(old), value(new)),
            Change::Input { slot, old, new, files } if files.is_empty() => {
                write!(f, "input {slot}: {} → {}", digest(old), digest(new))
            }
            Change::Input { slot, files, .. } => {
                let (path, what) = &files[0];
                let s = if files.len() == 1 { "" } else { "s" };
                write!(f, "input {slot}: {} file{s} changed, first: {path} {what}", files.len())
            }
            Change::Mode { slot, old, new } => {
                let mode = |runs: &bool| if *runs { "executable" } else { "not executable" };
                write!(f, "input {slot}: {} → {}", mode(old), mode(new))
            }
            Change::Pin { name, old, new } => write!(f, "pin {name}: {} → {}", value(old), value(new)),
            Change::Gone => write!(f, "its result is no longer in the store"),
            Change::Forced => write!(f, "it was requested with --force"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_difference_is_shown_with_both_values() {
        let text = |k: &str| {
            let json = format!(
                r#"{{"format":1,"kind":"pretrain","version":{},"parameters":{{"a":{{"b":[1,{}]}},"c":1}},"inputs":{{"i":"{}"}}{}}}"#,
                if k == "new" { 4 } else { 3 },
                if k == "new" { 5 } else { 2 },
                Digest::of(k.as_bytes()),
                if k == "new" { r#","executable":["i"]"# } else { "" }
            );
            serde_json::from_str::<Preimage>(&json).unwrap()
        };
        let shown: Vec<String> = changes(&text("old"), &text("new")).iter().map(ToString::to_string).collect();
        insta::assert_debug_snapshot!(shown);
        assert!(changes(&text("old"), &text("old")).is_empty());
    }
}
