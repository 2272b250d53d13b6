//! This host's cache of all results, in one file: a run with nothing to do reads it instead of opening every manifest.
//! Deleting it only costs time. An entry is valid while the key's `current` file has the same inode and change time.

use super::{Artifact, Published, Store, directory::FileStat};
use crate::{digest::Digest, key::Key};
use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

const HEADER: &[u8; 8] = b"cacoct01";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stamp {
    inode: u64,
    ctime: i64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Entry {
    stamp: Stamp,
    record: Arc<str>,
    outputs: Arc<[Artifact]>,
}

/// The entries, and the file they are stored in.
pub(super) struct Catalog {
    file: PathBuf,
    entries: RwLock<HashMap<Key, Entry>>,
    changed: AtomicBool,
}

impl Catalog {
    /// Reads the catalog; a missing or damaged file is an empty one.
    pub fn load(file: &Path) -> Self {
        let entries = decode(&fs::read(file).unwrap_or_default()).unwrap_or_default();
        Catalog { file: file.into(), entries: RwLock::new(entries), changed: AtomicBool::new(false) }
    }

    /// The last known result of a key.
    pub fn get(&self, key: Key) -> Option<Published> {
        let entries = self.entries.read().expect("no panic while held");
        entries.get(&key).map(|e| Published { key, record: e.record.clone(), outputs: e.outputs.clone() })
    }

    /// Caches a result in its current state.
    pub fn insert(&self, store: &Store, published: &Published) {
        let Some(stamp) = stamp(store, published.key) else { return };
        let entry = Entry { stamp, record: published.record.clone(), outputs: published.outputs.clone() };
        self.entries.write().expect("no panic while held").insert(published.key, entry);
        self.changed.store(true, Ordering::Relaxed);
    }

    /// Removes a key.
    pub fn remove(&self, key: Key) {
        self.entries.write().expect("no panic while held").remove(&key);
        self.changed.store(true, Ordering::Relaxed);
    }

    /// Whether the key's `current` file is unchanged.
    pub fn is_current(&self, store: &Store, published: &Published) -> bool {
        let now = stamp(store, published.key);
        let entries = self.entries.read().expect("no panic while held");
        entries.get(&published.key).is_some_and(|e| Some(e.stamp) == now && e.record == published.record)
    }

    /// Writes the catalog to disk, if it changed.
    pub fn save(&self) -> io::Result<()> {
        if !self.changed.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        if let Some(folder) = self.file.parent() {
            fs::create_dir_all(folder)?;
        }
        // Another run on this host may have written since; keep its entries.
        let mut all = decode(&fs::read(&self.file).unwrap_or_default()).unwrap_or_default();
        let entries = self.entries.read().expect("no panic while held");
        all.extend(entries.iter().map(|(key, entry)| (*key, entry.clone())));
        let aside = self.file.with_extension(format!("{}.partial", std::process::id()));
        fs::write(&aside, encode(&all))?;
        fs::rename(aside, &self.file)
    }
}

fn stamp(store: &Store, key: Key) -> Option<Stamp> {
    let FileStat { inode, ctime, .. } = store.directory.stat("results", key.0, "/current")?;
    Some(Stamp { inode, ctime })
}

/// How an output that is not an ordinary file is marked.
const FOLDER: u8 = 1;
const EXECUTABLE: u8 = 2;

fn encode(entries: &HashMap<Key, Entry>) -> Vec<u8> {
    let mut bytes = HEADER.to_vec();
    let short = |bytes: &mut Vec<u8>, text: &str| {
        bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
    };
    for (key, entry) in entries {
        bytes.extend_from_slice(&key.0.0);
        bytes.extend_from_slice(&entry.stamp.inode.to_le_bytes());
        bytes.extend_from_slice(&entry.stamp.ctime.to_le_bytes());
        short(&mut bytes, &entry.record);
        bytes.extend_from_slice(&(entry.outputs.len() as u32).to_le_bytes());
        for output in &*entry.outputs {
            short(&mut bytes, &output.name);
            bytes.push(if output.folder { FOLDER } else { u8::from(output.executable) * EXECUTABLE });
            bytes.extend_from_slice(&output.blake3.0);
            bytes.extend_from_slice(&output.sha256.0);
            bytes.extend_from_slice(&output.size.to_le_bytes());
            bytes.extend_from_slice(&output.length.to_le_bytes());
        }
    }
    let check = *blake3::Hasher::new().update_rayon(&bytes).finalize().as_bytes();
    bytes.extend_from_slice(&check);
    bytes
}

fn decode(bytes: &[u8]) -> Option<HashMap<Key, Entry>> {
    let (body, check) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
    if blake3::Hasher::new().update_rayon(body).finalize().as_bytes() != check {
        return None;
    }
    let mut rest = body.strip_prefix(HEADER)?;
    let mut entries = HashMap::with_capacity(rest.len() / 200);
    while !rest.is_empty() {
        let key = Key(Digest(*take(&mut rest)?));
        let stamp =
            Stamp { inode: u64::from_le_bytes(*take(&mut rest)?), ctime: i64::from_le_bytes(*take(&mut rest)?) };
        let record = text(&mut rest)?.into();
        let count = u32::from_le_bytes(*take(&mut rest)?);
        let outputs = (0..count).map(|_| artifact(&mut rest)).collect::<Option<_>>()?;
        entries.insert(key, Entry { stamp, record, outputs });
    }
    Some(entries)
}

fn artifact(rest: &mut &[u8]) -> Option<Artifact> {
    let (name, [kind]) = (text(rest)?.into(), *take(rest)?);
    Some(Artifact {
        name,
        folder: kind == FOLDER,
        executable: kind == EXECUTABLE,
        blake3: Digest(*take(rest)?),
        sha256: Digest(*take(rest)?),
        size: u64::from_le_bytes(*take(rest)?),
        length: u64::from_le_bytes(*take(rest)?),
    })
}

fn text<'b>(rest: &mut &'b [u8]) -> Option<&'b str> {
    let length = u32::from_le_bytes(*take(rest)?) as usize;
    let (text, after) = rest.split_at_checked(length)?;
    *rest = after;
    std::str::from_utf8(text).ok()
}

fn take<'b, const N: usize>(rest: &mut &'b [u8]) -> Option<&'b [u8; N]> {
    let (taken, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_round_trip_and_damage_is_detected() {
        let output = Artifact {
            name: "o".into(),
            folder: true,
            executable: false,
            blake3: Digest::of(b"1"),
            sha256: Digest::of(b"2"),
            size: 3,
            length: 4,
        };
        let entry = Entry {
            stamp: Stamp { inode: 1, ctime: -2 },
            record: "r".into(),
            outputs: [output.clone(), Artifact { folder: false, executable: true, ..output }].into(),
        };
        let entries = HashMap::from([(Key(Digest::of(b"k")), entry)]);
        let mut bytes = encode(&entries);
        assert_eq!(decode(&bytes).unwrap(), entries);
        bytes[50] ^= 1;
        assert!(decode(&bytes).is_none());
    }
}
