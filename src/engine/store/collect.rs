//! Garbage collection: removes unneeded results, and objects that no result refers to.

use super::{At, Result, Store};
use crate::{digest::Digest, key::Key};
use std::{
    collections::{HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// Which results to remove.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// Results older than this.
    pub older_than: Option<Duration>,
    /// The oldest results, until the rest takes at most this many bytes.
    pub keep_bytes: Option<u64>,
    /// Results other than these.
    pub keep_only: Option<HashSet<Key>>,
}

/// What a collection removed, or would remove.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct Collected {
    /// The results.
    pub results: Vec<Key>,
    /// The number of objects.
    pub objects: u64,
    /// Bytes freed.
    pub bytes: u64,
    /// The number of results kept.
    pub kept: u64,
    /// The number of folders of unfinished stages, with their checkpoints.
    pub unfinished: u64,
    /// The number of results within the limits that are pinned, used by a run in progress, or being computed.
    pub held: u64,
}

/// Unreferenced objects younger than this are kept, because a crashed run may resume with them.
const FRESH: Duration = Duration::from_secs(3600);

struct Candidate {
    key: Key,
    age: Duration,
    objects: HashSet<(Digest, u64)>,
}

/// Reference counts of the objects of the remaining results, and their total size.
#[derive(Default)]
struct Holdings {
    holders: HashMap<Digest, u32>,
    bytes: u64,
}

impl Holdings {
    fn add(&mut self, candidate: &Candidate) {
        for (digest, size) in &candidate.objects {
            let holders = self.holders.entry(*digest).or_default();
            self.bytes += if *holders == 0 { *size } else { 0 };
            *holders += 1;
        }
    }

    fn remove(&mut self, candidate: &Candidate) {
        for (digest, size) in &candidate.objects {
            let holders = self.holders.get_mut(digest).expect("it was added");
            *holders -= 1;
            self.bytes -= if *holders == 0 { *size } else { 0 };
        }
    }

    fn holds(&self, digest: &Digest) -> bool {
        self.holders.get(digest).is_some_and(|holders| *holders > 0)
    }
}

impl Store {
    /// Removes results by these limits, then the objects that no result refers to. Keeps results that are pinned, being
    /// computed, or used by a run in progress. A dry run removes nothing.
    pub fn collect(&self, limits: &Limits, dry: bool) -> Result<Collected> {
        let _alone = self.alone()?;
        let mut candidates = self.candidates()?;
        candidates.sort_by_key(|c| (std::cmp::Reverse(c.age), c.key));
        let mut holdings = Holdings::default();
        candidates.iter().for_each(|c| holdings.add(c));
        let used = self.used()?;
        let bound = |key: Key| self.is_pinned(key) || used.contains(&key) || self.is_locked(key);
        let mut collected = Collected::default();
        let mut released = HashSet::new();
        for candidate in &candidates {
            let old = limits.older_than.is_some_and(|limit| candidate.age > limit);
            let unreachable = limits.keep_only.as_ref().is_some_and(|keep| !keep.contains(&candidate.key));
            let too_much = limits.keep_bytes.is_some_and(|limit| holdings.bytes > limit);
            if !(old || unreachable || too_much) {
                continue;
            }
            if bound(candidate.key) {
                collected.held += 1;
                continue;
            }
            holdings.remove(candidate);
            released.extend(candidate.objects.iter().map(|(digest, _)| *digest));
            collected.results.push(candidate.key);
        }
        collected.kept = (candidates.len() - collected.results.len()) as u64;
        if !dry {
            collected.results.iter().try_for_each(|key| self.remove_result(*key))?;
        }
        self.collect_objects(&holdings, &released, dry, &mut collected)?;
        if let Some(limit) = limits.older_than {
            collected.unfinished = self.collect_work(limit, dry)?;
        }
        if !dry {
            self.collect_listings()?;
        }
        Ok(collected)
    }

    fn candidates(&self) -> Result<Vec<Candidate>> {
        let mut candidates = vec![];
        for key in self.keys()? {
            let mut objects = HashSet::new();
            let mut age = Duration::MAX;
            for record in self.records(key)? {
                age = age.min(age_of(&self.result(key).join(&*record).join("manifest.json")));
                objects.extend(self.objects_held(key, &record)?);
            }
            candidates.push(Candidate { key, age, objects });
        }
        Ok(candidates)
    }

    /// The objects of a record, with their lengths. Of a damaged record or listing, those that can still be read.
    pub(super) fn objects_held(&self, key: Key, record: &str) -> Result<Vec<(Digest, u64)>> {
        let Ok(Some(manifest)) = self.read_manifest(key, record) else { return Ok(vec![]) };
        let mut objects = vec![];
        for output in &manifest.outputs {
            objects.push((output.blake3, output.length));
            if output.folder
                && let Ok(listing) = self.listing(output)
            {
                objects.extend(listing.files.iter().map(|f| (f.digest, f.size)));
            }
        }
        Ok(objects)
    }

    fn collect_objects(
        &self,
        holdings: &Holdings,
        released: &HashSet<Digest>,
        dry: bool,
        collected: &mut Collected,
    ) -> Result<()> {
        for digest in self.objects()? {
            let path = self.object(digest);
            let fresh = || age_of(&path) < FRESH;
            if holdings.holds(&digest) || (!released.contains(&digest) && fresh()) {
                continue;
            }
            collected.objects += 1;
            collected.bytes += fs::metadata(&path).map_or(0, |m| m.len());
            if !dry {
                self.drop_tree(digest);
                fs::remove_file(&path).at("remove", &path)?;
            }
        }
        Ok(())
    }

    /// Removes folders of unfinished stages that have not changed within `limit` and that no process has locked.
    fn collect_work(&self, limit: Duration, dry: bool) -> Result<u64> {
        let folder = self.root.join("work");
        let mut removed = 0;
        for name in super::result::names(&folder)? {
            let path = folder.join(&name);
            let held = name.parse().is_ok_and(|key| self.is_locked(key));
            let age =
                super::result::names(&path).unwrap_or_default().iter().map(|inner| age_of(&path.join(inner))).min();
            if held || age.unwrap_or(age_of(&path)).min(age_of(&path)) <= limit {
                continue;
            }
            removed += 1;
            if !dry {
                if path.is_dir() { super::remove_folder(&path) } else { fs::remove_file(&path) }.at("remove", &path)?;
            }
        }
        Ok(removed)
    }

    /// Removes the folder that was assembled from a listing; it is cheap to assemble again.
    pub(super) fn drop_tree(&self, listing: Digest) {
        let _ = fs::remove_dir_all(self.tree(listing));
    }

    /// Removes listings of outside folders that no result refers to: `why` only compares with the last result.
    fn collect_listings(&self) -> Result<()> {
        let mut wanted = HashSet::new();
        for key in self.keys()? {
            if let Ok(Some(preimage)) = self.preimage(key) {
                wanted.extend(preimage.inputs.values().map(ToString::to_string));
            }
        }
        let folder = self.root.join("listings");
        for name in super::result::names(&folder)?.into_iter().filter(|name| !wanted.contains(name)) {
            let path = folder.join(name);
            fs::remove_file(&path).at("remove", &path)?;
        }
        Ok(())
    }

    fn remove_result(&self, key: Key) -> Result<()> {
        let folder = self.result(key);
        self.keep_tombstones(key)?;
        self.catalog.remove(key);
        // Rename it first: a partly removed folder must not look like a result.
        let aside = self.aside();
        fs::rename(&folder, &aside).at("remove", &folder)?;
        fs::remove_dir_all(&aside).at("remove", &aside)
    }

    /// Whether a result is pinned, which protects it from collection.
    pub fn is_pinned(&self, key: Key) -> bool {
        self.pin_file(key).exists()
    }

    /// Pins a result with a reason, or unpins it.
    pub fn pin(&self, key: Key, reason: Option<&str>) -> Result<()> {
        let path = self.pin_file(key);
        match reason {
            Some(reason) => super::write_aside(&path, reason.as_bytes()),
            None => fs::remove_file(&path).at("remove", &path),
        }
    }

    fn pin_file(&self, key: Key) -> PathBuf {
        self.result(key).join("pinned")
    }
}

fn age_of(path: &Path) -> Duration {
    let modified = fs::metadata(path).and_then(|m| m.modified());
    modified.ok().and_then(|m| SystemTime::now().duration_since(m).ok()).unwrap_or_default()
}
