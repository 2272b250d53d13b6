//! What a store contains for a key. Read-only: nothing is quarantined, repaired or cached.

use super::{
    envelope::Envelope,
    statement::{PROVENANCE, Provenance, Statement},
};
use anyhow::{Context, Result, ensure};
use caco_engine::{
    digest::Digest,
    key::Key,
    store::{ATTESTATION, Artifact, Manifest, Store, Tombstone},
};
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

/// The record of a result, or what a collection left of it.
#[derive(Debug)]
pub struct Evidence {
    /// Its key.
    pub key: Key,
    /// Its name.
    pub record: Box<str>,
    /// Other records of the key, if it diverges.
    pub others: Vec<Box<str>>,
    /// Whether it was collected, so that only its texts remain.
    pub collected: bool,
    /// The missing record that `current` names.
    pub dangling: Option<String>,
    files: Files,
}

#[derive(Debug)]
enum Files {
    Folder(PathBuf),
    Kept(BTreeMap<String, String>),
}

impl Evidence {
    /// The current record of a key, or its tombstone. `None` if there is neither.
    pub fn of(store: &Store, key: Key) -> Result<Option<Evidence>> {
        let folder = store.result(key);
        let mut records = folders(&folder)?;
        let named = fs::read_to_string(folder.join("current")).ok().map(|text| text.trim().to_string());
        let place = records.iter().position(|record| Some(&**record) == named.as_deref());
        if !records.is_empty() {
            let record = records.remove(place.unwrap_or(0));
            let (files, dangling) = (Files::Folder(folder.join(&*record)), named.filter(|_| place.is_none()));
            return Ok(Some(Evidence { key, record, others: records, collected: false, dangling, files }));
        }
        let mut tombstones = store.tombstones(key)?.into_iter();
        let Some(Tombstone { record, files }) = tombstones.next() else { return Ok(None) };
        let others = tombstones.map(|tombstone| tombstone.record).collect();
        Ok(Some(Evidence { key, record, others, collected: true, dangling: None, files: Files::Kept(files) }))
    }

    /// The record in a folder, which is inside that of its key. `None` if there is none.
    pub fn of_folder(folder: &Path) -> Option<Evidence> {
        let name = |path: &Path| Some(path.file_name()?.to_str()?.to_string());
        let above = folder.parent()?;
        let key = format!("{}{}", name(above.parent()?)?, name(above)?).parse().ok()?;
        let (record, files) = (name(folder)?.into(), Files::Folder(folder.into()));
        let evidence = Evidence { key, record, others: vec![], collected: false, dangling: None, files };
        folder.is_dir().then_some(evidence)
    }

    /// A given record of a key. `None` if it does not exist.
    pub fn of_record(store: &Store, key: Key, record: &str) -> Result<Option<Evidence>> {
        let folder = store.result(key).join(record);
        let others = folders(&store.result(key))?.into_iter().filter(|other| **other != *record).collect();
        let files = Files::Folder(folder.clone());
        let evidence = Evidence { key, record: record.into(), others, collected: false, dangling: None, files };
        Ok(folder.is_dir().then_some(evidence))
    }

    /// Reads one of its files. `None` if it does not exist.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        match &self.files {
            Files::Kept(files) => Ok(files.get(name).map(|text| text.clone().into_bytes())),
            Files::Folder(folder) => match fs::read(folder.join(name)) {
                Ok(bytes) => Ok(Some(bytes)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(e) => Err(e).with_context(|| format!("cannot read {}", folder.join(name).display())),
            },
        }
    }

    /// The path of one of its files, for messages.
    pub fn place(&self, name: &str) -> PathBuf {
        match &self.files {
            Files::Folder(folder) => folder.join(name),
            Files::Kept(_) => Path::new("the collected record").join(name),
        }
    }

    /// The relative paths of all files of the record except the attestation, sorted. Empty if the record was collected.
    pub fn names(&self) -> Result<Vec<String>> {
        let Files::Folder(folder) = &self.files else { return Ok(vec![]) };
        let mut names = vec![];
        walk(folder, "", &mut names)?;
        names.retain(|name| name != ATTESTATION);
        names.sort();
        Ok(names)
    }

    /// Parses the manifest.
    pub fn manifest(&self) -> Result<Manifest> {
        let text = self.read("manifest.json")?.context("it is missing")?;
        serde_json::from_slice(&text).context("it is not a manifest")
    }

    /// The signed envelope. `None` if the record is unsigned.
    pub fn envelope(&self) -> Result<Option<Envelope>> {
        self.read(ATTESTATION)?.map(|text| Envelope::parse(&text)).transpose()
    }

    /// How the result was produced, from `record.json`.
    pub fn made(&self) -> serde_json::Value {
        let text = self.read("record.json").ok().flatten().unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }
}

/// The provenance statement in an envelope.
pub fn provenance(envelope: &Envelope) -> Result<Statement<Provenance>> {
    Statement::parse(&envelope.payload()?, PROVENANCE)
}

/// The outputs in a statement, as artifacts of the store. A statement does not contain object lengths.
pub fn stated(statement: &Statement<Provenance>) -> Result<Vec<Artifact>> {
    let artifact = |subject: &super::statement::Descriptor| {
        let digest = |found: Option<Digest>, what: &str| {
            found.with_context(|| format!("its subject '{}' has no {what}", subject.name()))
        };
        let size = subject.annotations.get("size").and_then(serde_json::Value::as_u64);
        Ok(Artifact {
            name: subject.noted("output").context("a subject does not name its output")?.into(),
            folder: subject.media_type.as_deref() == Some(super::statement::LISTING),
            executable: subject.annotations.get("executable").is_some_and(|value| value == true),
            blake3: digest(subject.blake3(), "BLAKE3 digest")?,
            sha256: digest(subject.sha256(), "SHA-256 digest")?,
            size: size.context("a subject has no size")?,
            length: 0,
        })
    };
    ensure!(!statement.subject.is_empty(), "it has no subject");
    statement.subject.iter().map(artifact).collect()
}

/// The subfolders that could be records, sorted.
fn folders(folder: &Path) -> Result<Vec<Box<str>>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        Err(e) => return Err(e).with_context(|| format!("cannot read {}", folder.display())),
    };
    let mut found = vec![];
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot read {}", folder.display()))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let plain = name.len() == 16 && name.bytes().all(|b| b.is_ascii_hexdigit());
        if plain && entry.path().is_dir() {
            found.push(name.into());
        }
    }
    found.sort();
    Ok(found)
}

fn walk(folder: &Path, prefix: &str, names: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry.with_context(|| format!("cannot read {}", folder.display()))?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() { walk(&entry.path(), &format!("{name}/"), names)? } else { names.push(name) }
    }
    Ok(())
}
