//! Verifies that all bytes match their digests.

use super::{Artifact, Error, Published, Result, Store, result::names};
use crate::{digest::Digest, key::Key, listing::Listing, stat, walk};
use rayon::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    time::{Duration, SystemTime},
};

/// A damaged or missing file.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct Finding {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it, and what was done.
    pub what: String,
    /// The keys whose results need it. They run again when next requested.
    pub keys: Vec<Key>,
}

/// The outcome of `verify`.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct Check {
    /// Records read.
    pub records: u64,
    /// Objects read.
    pub objects: u64,
    /// Bytes read.
    pub bytes: u64,
    /// The damaged and missing files.
    pub findings: Vec<Finding>,
}

/// What a process has verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Checked {
    /// An object.
    Object(Digest),
    /// The folder that was assembled from a listing.
    Tree(Digest),
}

impl Store {
    /// Reads every record and every object. Objects whose bytes do not match their name are quarantined, so that the
    /// stages that wrote them run again.
    pub fn verify(&self) -> Result<Check> {
        let objects = self.objects()?;
        let read = |digest: &Digest| {
            let size = fs::metadata(self.object(*digest)).map_or(0, |m| m.len());
            self.check_object(*digest).map(|whole| (*digest, whole, size))
        };
        let read = objects.par_iter().map(read).collect::<Result<Vec<_>>>()?;
        let whole: HashMap<Digest, bool> = read.iter().map(|(digest, whole, _)| (*digest, *whole)).collect();
        let mut check = Check { objects: read.len() as u64, bytes: read.iter().map(|r| r.2).sum(), ..Check::default() };
        let mut wanted: BTreeMap<Digest, BTreeSet<Key>> =
            read.iter().filter(|r| !r.1).map(|r| (r.0, BTreeSet::new())).collect();
        let mut broken = vec![];
        for key in self.keys()? {
            for record in self.records(key)? {
                check.records += 1;
                match self.objects_of(key, &record, &whole) {
                    Ok(needed) => {
                        let lost = needed.into_iter().filter(|(digest, _)| whole.get(digest) != Some(&true));
                        for (digest, folder) in lost {
                            wanted.entry(digest).or_default().insert(key);
                            broken.extend(folder);
                        }
                    }
                    Err(Error::Damaged { path, why }) => {
                        self.set_aside(&self.result(key).join(&*record))?;
                        check.findings.push(Finding {
                            path,
                            what: format!("{why}; the record was moved to the quarantine"),
                            keys: vec![key],
                        });
                    }
                    Err(e) => return Err(e),
                }
            }
        }
        for (digest, keys) in wanted {
            let what = if whole.contains_key(&digest) {
                "its bytes do not match the digest in its name; moved to the quarantine"
            } else {
                "is missing"
            };
            keys.iter().for_each(|key| self.forget_key(*key));
            check.findings.push(Finding {
                path: self.object(digest),
                what: what.into(),
                keys: keys.into_iter().collect(),
            });
        }
        broken.iter().try_for_each(|folder| self.break_folder(folder))?;
        check.findings.extend(self.verify_trees()?);
        Ok(check)
    }

    /// Compares every assembled folder with its listing. One that differs is moved to the quarantine, and assembled again
    /// when a stage next reads it.
    fn verify_trees(&self) -> Result<Vec<Finding>> {
        let names = names(&self.root.join("trees"))?;
        let digests = names.iter().filter_map(|name| name.parse().ok());
        digests.filter_map(|digest| self.verify_tree(digest).transpose()).collect()
    }

    fn verify_tree(&self, digest: Digest) -> Result<Option<Finding>> {
        let tree = self.tree(digest);
        let found = Listing::of_folder(&tree, &stat::Cache::none()).map(|listing| listing.digest());
        // A tree that cannot be read now may be whole.
        if matches!(found, Err(walk::Error::Io { .. })) || found.is_ok_and(|found| found == digest) {
            return Ok(None);
        }
        self.set_aside(&tree)?;
        let what = "it does not match the digest in its name; moved to the quarantine".into();
        Ok(Some(Finding { path: tree, what, keys: vec![] }))
    }

    /// Sets an assembled folder aside that is not what its objects, which were verified, make: it is assembled again. A file
    /// that is a hard link to its object needs not be read.
    fn check_tree(&self, folder: &Artifact) -> Result<()> {
        let tree = self.tree(folder.blake3);
        if !tree.exists() || self.has_checked(Checked::Tree(folder.blake3)) {
            return Ok(());
        }
        let listing = self.listing(folder)?;
        let known = listing.files.iter().map(|file| (tree.join(&file.path), file.digest));
        let linked = |(path, digest): (PathBuf, Digest)| {
            let (meta, object) = (fs::symlink_metadata(&path).ok()?, fs::metadata(self.object(digest)).ok()?);
            ((meta.dev(), meta.ino()) == (object.dev(), object.ino())).then_some((path, meta, digest))
        };
        // A cache of digests takes what is new only later, as it might still be written to; these files are known.
        let (cache, later) = (stat::Cache::none(), SystemTime::now() + Duration::from_secs(3600));
        known.filter_map(linked).for_each(|(path, meta, digest)| cache.insert(&path, &meta, digest, later));
        let found = Listing::of_folder(&tree, &cache);
        if found.is_ok_and(|found| found == listing) {
            self.note_checked(Checked::Tree(folder.blake3));
            return Ok(());
        }
        self.set_aside(&tree)
    }

    fn has_checked(&self, what: Checked) -> bool {
        self.checked.lock().expect("no panic while held").contains(&what)
    }

    fn note_checked(&self, what: Checked) {
        self.checked.lock().expect("no panic while held").insert(what);
    }

    /// Every object that a record needs, each with the folder output that contains it. The files of a damaged listing
    /// are unknown.
    fn objects_of(
        &self,
        key: Key,
        record: &str,
        whole: &HashMap<Digest, bool>,
    ) -> Result<Vec<(Digest, Option<Artifact>)>> {
        let Some(manifest) = self.read_manifest(key, record)? else { return Ok(vec![]) };
        self.check_preimage(key, record)?;
        let mut needed = vec![];
        for output in &manifest.outputs {
            needed.push((output.blake3, None));
            if output.folder && whole.get(&output.blake3) == Some(&true) {
                needed.extend(self.listing(output)?.files.iter().map(|f| (f.digest, Some(output.clone()))));
            }
        }
        Ok(needed)
    }

    /// Checks that the key is the digest of a record's preimage.
    pub(super) fn check_preimage(&self, key: Key, record: &str) -> Result<()> {
        let path = self.result(key).join(record).join("preimage.json");
        let text = fs::read(&path).unwrap_or_default();
        if Key(Digest::of(&text)) == key {
            return Ok(());
        }
        Err(Error::Damaged { path, why: "its digest is not the key".into() })
    }

    /// Verifies the objects of a result against their digests, once per store handle, and quarantines damaged ones.
    /// Returns whether all were valid.
    pub fn check_result(&self, published: &Published) -> Result<bool> {
        let mut whole = true;
        for output in &*published.outputs {
            let mut sound = self.check_once(output.blake3)?;
            if sound && output.folder {
                let files = self.listing(output)?.files;
                let checked = files.par_iter().map(|f| self.check_once(f.digest)).collect::<Result<Vec<_>>>()?;
                sound = checked.iter().all(|sound| *sound);
            }
            if !sound {
                self.break_folder(output)?;
            }
            whole &= sound;
        }
        Ok(whole)
    }

    /// No longer relies on what was verified before: something may have written to the store.
    pub fn doubt(&self) {
        self.checked.lock().expect("no panic while held").clear();
    }

    /// As [`Store::check_result`], with the folders that were assembled. One that was changed is set aside, and assembled again.
    pub fn check_with_folders(&self, published: &Published) -> Result<bool> {
        let sound = self.check_result(published)?;
        if sound {
            published.outputs.iter().filter(|output| output.folder).try_for_each(|output| self.check_tree(output))?;
        }
        Ok(sound)
    }

    /// Quarantines a listing with missing or damaged files, so that the missing listing alone shows that the folder is
    /// incomplete.
    fn break_folder(&self, output: &Artifact) -> Result<()> {
        if !output.folder {
            return Ok(());
        }
        self.drop_tree(output.blake3);
        let listing = self.object(output.blake3);
        if listing.exists() { self.set_aside(&listing) } else { Ok(()) }
    }

    fn check_once(&self, digest: Digest) -> Result<bool> {
        let sound = self.has_checked(Checked::Object(digest)) || self.check_object(digest)?;
        if sound {
            self.note_checked(Checked::Object(digest));
        }
        Ok(sound)
    }

    fn forget_key(&self, key: Key) {
        self.catalog.remove(key);
    }

    /// All objects, sorted by digest.
    pub fn objects(&self) -> Result<Vec<Digest>> {
        let root = self.root.join("objects");
        let mut objects = vec![];
        for shard in names(&root)? {
            let found = names(&root.join(&shard))?;
            objects.extend(found.iter().filter_map(|rest| format!("{shard}{rest}").parse::<Digest>().ok()));
        }
        objects.sort();
        Ok(objects)
    }
}
