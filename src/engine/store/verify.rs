//! Does every byte say what its name says?

use super::{Artifact, Error, Published, Result, Store, result::names};
use crate::{digest::Digest, key::Key};
use rayon::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    path::PathBuf,
};

/// Something that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct Finding {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it, and what was done.
    pub what: String,
    /// The keys whose results need it; they run again when they are next asked for.
    pub keys: Vec<Key>,
}

/// What `verify` saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct Check {
    /// Records read.
    pub records: u64,
    /// Objects read.
    pub objects: u64,
    /// Bytes read.
    pub bytes: u64,
    /// What does not hold.
    pub findings: Vec<Finding>,
}

impl Store {
    /// Reads every record and every object. Objects whose bytes are not what their name says are set aside, so that the
    /// stages that made them run again.
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
                            what: format!("{why}; record set aside"),
                            keys: vec![key],
                        });
                    }
                    Err(e) => return Err(e),
                }
            }
        }
        for (digest, keys) in wanted {
            let what = if whole.contains_key(&digest) {
                "its bytes are not what its name says; set aside"
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
        Ok(check)
    }

    /// Every object that a record needs, each with the folder that it is a file of. A listing that is itself damaged
    /// cannot name its files.
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

    /// The key is the digest of the preimage that is kept with a record.
    pub(super) fn check_preimage(&self, key: Key, record: &str) -> Result<()> {
        let path = self.result(key).join(record).join("preimage.json");
        let text = fs::read(&path).unwrap_or_default();
        if Key(Digest::of(&text)) == key {
            return Ok(());
        }
        Err(Error::Damaged { path, why: "its digest is not the key".into() })
    }

    /// Reads what a result consists of and compares it with its digests, once in the life of this store. What does not
    /// hold is set aside. Whether all of it held.
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

    /// A listing some of whose files are gone or damaged must not pass for a whole folder: it is set aside too, so that
    /// a look at the listing alone tells.
    fn break_folder(&self, output: &Artifact) -> Result<()> {
        if !output.folder {
            return Ok(());
        }
        self.drop_tree(output.blake3);
        let listing = self.object(output.blake3);
        if listing.exists() { self.set_aside(&listing) } else { Ok(()) }
    }

    fn check_once(&self, digest: Digest) -> Result<bool> {
        if self.checked.lock().expect("no panic while held").contains(&digest) {
            return Ok(true);
        }
        let sound = self.check_object(digest)?;
        if sound {
            self.checked.lock().expect("no panic while held").insert(digest);
        }
        Ok(sound)
    }

    fn forget_key(&self, key: Key) {
        self.catalog.remove(key);
    }

    /// Every object, by name.
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
