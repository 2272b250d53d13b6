//! Keys with records of different bytes: what each record contains, how it was produced, and which one is current.

use super::{evidence::Evidence, keyring::Trust};
use anyhow::Result;
use caco_engine::{
    digest::Digest,
    key::Key,
    store::{Divergence, Store},
};
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// One key with several records.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct Diverging {
    /// The key.
    pub key: Key,
    /// The stage.
    pub stage: String,
    /// Its records.
    pub records: Vec<Side>,
    /// The outputs that differ.
    pub outputs: Vec<String>,
    /// The notes about it.
    pub notes: Vec<Divergence>,
}

/// One of the records.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct Side {
    /// Its name.
    pub record: Box<str>,
    /// Whether it is the key's current record.
    pub stands: bool,
    /// Whether it is still in the store.
    pub there: bool,
    /// When it was computed.
    pub started: Option<String>,
    /// On which host.
    pub host: Option<String>,
    /// Its determinism class.
    pub class: Value,
    /// The trusted key that signed.
    pub signer: Option<String>,
    /// Its outputs.
    pub outputs: BTreeMap<String, Digest>,
}

/// All keys that diverge, or that a note says diverged.
pub fn all(store: &Store, trust: &Trust) -> Result<Vec<Diverging>> {
    let mut notes: BTreeMap<Key, Vec<Divergence>> = BTreeMap::new();
    for note in store.divergences()? {
        notes.entry(note.key).or_default().push(note);
    }
    for key in store.keys()? {
        if store.records(key)?.len() > 1 {
            notes.entry(key).or_default();
        }
    }
    notes.into_iter().map(|(key, notes)| of(store, trust, key, notes)).collect()
}

fn of(store: &Store, trust: &Trust, key: Key, notes: Vec<Divergence>) -> Result<Diverging> {
    let mut names: BTreeSet<Box<str>> = store.records(key)?.into_iter().collect();
    names.extend(notes.iter().flat_map(|note| [note.standing.clone(), note.other.clone()]));
    let standing = Evidence::of(store, key)?.filter(|evidence| !evidence.collected).map(|evidence| evidence.record);
    let mut stage = String::new();
    let mut records = vec![];
    for record in names {
        let evidence = Evidence::of_record(store, key, &record)?;
        let made = evidence.as_ref().map(Evidence::made).unwrap_or_default();
        let said = |name: &str| made[name].as_str().map(String::from);
        stage = said("stage").unwrap_or(stage);
        let envelope = evidence.as_ref().and_then(|evidence| evidence.envelope().ok().flatten());
        let signer = envelope.and_then(|envelope| match envelope.verify(trust) {
            Ok(super::envelope::Verdict::Trusted(known)) => Some(known.name.clone()),
            _ => None,
        });
        let manifest = evidence.as_ref().and_then(|evidence| evidence.manifest().ok());
        let outputs = manifest.map(|m| m.outputs).unwrap_or_default();
        records.push(Side {
            stands: standing.as_ref() == Some(&record),
            there: evidence.is_some(),
            started: said("started"),
            host: said("host"),
            class: made["determinism_class"].clone(),
            signer,
            outputs: outputs.into_iter().map(|o| (o.name.into(), o.blake3)).collect(),
            record,
        });
    }
    let outputs = differing(&records);
    Ok(Diverging { key, stage, records, outputs, notes })
}

/// The outputs that differ between the existing records.
fn differing(records: &[Side]) -> Vec<String> {
    let there: Vec<&Side> = records.iter().filter(|side| side.there).collect();
    let names: BTreeSet<&String> = there.iter().flat_map(|side| side.outputs.keys()).collect();
    let differs =
        |name: &&&String| there.windows(2).any(|pair| pair[0].outputs.get(**name) != pair[1].outputs.get(**name));
    names.iter().filter(differs).map(|name| name.to_string()).collect()
}
