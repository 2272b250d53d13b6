//! Outputs that a program wrote before it ended well, and that could not be collected. They are kept, so that a second
//! collection needs no second run.

use super::{digest::Digest, external::External, gpu::Gpu, listing, stat};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// How the program ran, and what it left.
#[derive(Debug, Serialize, Deserialize)]
pub struct Uncollected {
    /// When it started.
    pub began: SystemTime,
    /// How long it ran.
    pub took: Duration,
    /// Which attempt it was.
    pub attempt: u32,
    /// The CPU cores that it had.
    pub cpus: u32,
    /// The GPUs that it had.
    pub gpus: Vec<Gpu>,
    /// Further conditions, for the record.
    pub conditions: serde_json::Value,
    /// The digests of its files by path. None: there is no such file, or it cannot be read.
    pub files: BTreeMap<String, Option<Digest>>,
}

impl Uncollected {
    /// The digests of files or folders below a stage's output folder.
    pub fn digests<'p>(out: &Path, files: impl Iterator<Item = &'p str>) -> BTreeMap<String, Option<Digest>> {
        let digest = |file: &str| {
            let found = listing::of_path(&External::whole(&out.join(file)), &stat::Cache::none()).ok()??;
            Some(found.content.digest())
        };
        files.map(|file| (file.to_string(), digest(file))).collect()
    }

    /// The files that are no longer as the program left them.
    pub fn edited(&self, out: &Path) -> Vec<String> {
        let now = Uncollected::digests(out, self.files.keys().map(String::as_str));
        self.files.iter().filter(|(file, before)| now[*file] != **before).map(|(file, _)| file.clone()).collect()
    }

    /// Writes it beside a stage's folder, where the stage itself cannot. Errors are ignored: the stage then runs again.
    pub fn write(&self, work: &Path) {
        let _ = fs::write(beside(work), serde_json::to_vec(self).expect("plain data is JSON"));
    }

    /// What was kept of the stage with this folder. It is forgotten: whatever comes of it, it counts once.
    pub fn take(work: &Path) -> Option<Uncollected> {
        let text = fs::read(beside(work)).ok()?;
        fs::remove_file(beside(work)).ok()?;
        serde_json::from_slice(&text).ok()
    }
}

fn beside(work: &Path) -> PathBuf {
    work.with_extension("uncollected")
}
