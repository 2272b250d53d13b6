//! Garbage collection: results that nobody needs any more, and objects that no result holds.

use super::{At, Result, Store, result::names};
use crate::engine::{digest::Digest, key::Key};
use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// Which results may go.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// Results older than this.
    pub older_than: Option<Duration>,
    /// The oldest results, until the rest takes no more bytes than this.
    pub keep_bytes: Option<u64>,
    /// Results that are none of these.
    pub keep_only: Option<HashSet<Key>>,
}

/// What a collection removed, or would remove.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Collected {
    /// Results.
    pub results: Vec<Key>,
    /// Objects, by number.
    pub objects: u64,
    /// Bytes freed.
    pub bytes: u64,
    /// Results that stay, by number.
    pub kept: u64,
}

/// Objects younger than this are left alone: the run that made them may not have published them yet.
const FRESH: Duration = Duration::from_secs(3600);

struct Candidate {
    key: Key,
    age: Duration,
    objects: Vec<(Digest, u64)>,
}

impl Store {
    /// Removes results by these limits, then the objects that no result holds. Pinned results, results whose key is
    /// being computed or that a run in progress uses stay. A dry run only tells.
    pub fn collect(&self, limits: &Limits, dry: bool) -> Result<Collected> {
        let mut candidates = self.candidates()?;
        candidates.sort_by_key(|c| std::cmp::Reverse(c.age));
        let mut going = HashSet::new();
        let free = |c: &&Candidate| !self.is_pinned(c.key) && !self.is_locked(c.key) && !self.is_used(c.key);
        for candidate in candidates.iter().filter(free) {
            let old = limits.older_than.is_some_and(|limit| candidate.age > limit);
            let unreachable = limits.keep_only.as_ref().is_some_and(|keep| !keep.contains(&candidate.key));
            if old || unreachable {
                going.insert(candidate.key);
            }
        }
        if let Some(limit) = limits.keep_bytes {
            for candidate in candidates.iter().filter(free) {
                if bytes_of(candidates.iter().filter(|c| !going.contains(&c.key))) <= limit {
                    break;
                }
                going.insert(candidate.key);
            }
        }
        let held: HashSet<Digest> = candidates
            .iter()
            .filter(|c| !going.contains(&c.key))
            .flat_map(|c| c.objects.iter().map(|(d, _)| *d))
            .collect();
        let mut collected = Collected { kept: (candidates.len() - going.len()) as u64, ..Collected::default() };
        collected.results = candidates.iter().map(|c| c.key).filter(|k| going.contains(k)).collect();
        if !dry {
            for key in &collected.results {
                self.remove_result(*key)?;
            }
        }
        self.collect_objects(&held, &going, &candidates, dry, &mut collected)?;
        Ok(collected)
    }

    fn candidates(&self) -> Result<Vec<Candidate>> {
        let mut candidates = vec![];
        for key in self.keys()? {
            let mut objects = vec![];
            let mut age = Duration::MAX;
            for record in self.records(key)? {
                let manifest = self.result(key).join(&*record).join("manifest.json");
                age = age.min(age_of(&manifest));
                let Ok(Some(manifest)) = self.read_manifest(key, &record) else { continue };
                for output in &manifest.outputs {
                    objects.push((output.blake3, output.length));
                    if output.folder
                        && let Ok(listing) = self.listing(output)
                    {
                        objects.extend(listing.files.iter().map(|f| (f.digest, f.size)));
                    }
                }
            }
            candidates.push(Candidate { key, age, objects });
        }
        Ok(candidates)
    }

    fn collect_objects(
        &self,
        held: &HashSet<Digest>,
        going: &HashSet<Key>,
        candidates: &[Candidate],
        dry: bool,
        collected: &mut Collected,
    ) -> Result<()> {
        let released: HashSet<Digest> = candidates
            .iter()
            .filter(|c| going.contains(&c.key))
            .flat_map(|c| c.objects.iter().map(|(d, _)| *d))
            .collect();
        for digest in self.objects()? {
            let path = self.object(digest);
            let fresh = age_of(&path) < FRESH && !released.contains(&digest);
            if held.contains(&digest) || fresh {
                continue;
            }
            collected.objects += 1;
            collected.bytes += fs::metadata(&path).map_or(0, |m| m.len());
            if !dry {
                let tree = self.root.join("trees").join(digest.to_string());
                let _ = fs::remove_dir_all(tree);
                fs::remove_file(&path).at("remove", &path)?;
            }
        }
        Ok(())
    }

    fn remove_result(&self, key: Key) -> Result<()> {
        let folder = self.result(key);
        self.catalog.remove(key);
        // First the name, then the rest: what is half removed must not look like a result.
        let aside = self.root.join("work").join(self.unique());
        fs::rename(&folder, &aside).at("remove", &folder)?;
        fs::remove_dir_all(&aside).at("remove", &aside)
    }

    /// Whether a result is pinned: never collected.
    pub fn is_pinned(&self, key: Key) -> bool {
        self.pin_file(key).exists()
    }

    /// Pins a result, with a reason, or lets go of it.
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

    /// Whether a run in progress said that it uses a result.
    fn is_used(&self, key: Key) -> bool {
        let text = key.to_string();
        let uses = self.root.join("uses");
        names(&uses).unwrap_or_default().iter().any(|run| {
            let path = uses.join(run);
            let held = fs::File::options()
                .write(true)
                .open(&path)
                .is_ok_and(|f| matches!(f.try_lock(), Err(fs::TryLockError::WouldBlock)));
            held && fs::read_to_string(&path).is_ok_and(|keys| keys.lines().any(|line| line == text))
        })
    }
}

fn bytes_of<'c>(candidates: impl Iterator<Item = &'c Candidate>) -> u64 {
    let unique: HashSet<(Digest, u64)> = candidates.flat_map(|c| c.objects.iter().copied()).collect();
    unique.iter().map(|(_, size)| size).sum()
}

fn age_of(path: &Path) -> Duration {
    let modified = fs::metadata(path).and_then(|m| m.modified());
    modified.ok().and_then(|m| SystemTime::now().duration_since(m).ok()).unwrap_or_default()
}
