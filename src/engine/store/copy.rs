//! Copies results from one store to another, and verifies every byte against its digest.

use super::{ATTESTATION, At, Cause, Error, Result, Store, commit::is_unsigned, copy_file};
use crate::{
    digest::{self, Digest},
    key::Key,
};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// The outcome of a copy.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct Copied {
    /// Records that are new at the target.
    pub records: u64,
    /// Records that already existed.
    pub there: u64,
    /// Objects copied.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Keys that now have records of different bytes at the target.
    pub diverges: Vec<Key>,
}

/// A record whose folder was copied to the target, but not yet renamed into place.
struct Staged {
    key: Key,
    record: Box<str>,
    aside: PathBuf,
}

impl Store {
    /// Copies all records of these keys into another store. Nothing is visible there before everything is on disk. A
    /// damaged object in this store is an error that names it, and then no record appears.
    pub fn copy_to(&self, target: &Store, keys: &[Key]) -> Result<Copied> {
        let _here = self.quiet()?;
        let _there = target.quiet()?;
        let mut copied = Copied::default();
        let mut staged = vec![];
        let whole = self.stage_copies(target, keys, &mut staged, &mut copied).and_then(|()| target.sync_all());
        if let Err(error) = whole {
            staged.iter().for_each(|staged| _ = fs::remove_dir_all(&staged.aside));
            return Err(error);
        }
        target.merge_divergences(self, keys)?;
        for staged in staged {
            target.reveal_copy(&staged, self, &mut copied)?;
        }
        Ok(copied)
    }

    fn stage_copies(&self, target: &Store, keys: &[Key], staged: &mut Vec<Staged>, copied: &mut Copied) -> Result<()> {
        for key in keys {
            // The current record here becomes the current one there, if there is none yet.
            let (standing, mut records) = (self.current(*key)?, self.records(*key)?);
            records.sort_by_key(|record| standing.as_ref() != Some(record));
            for record in records {
                // An unsigned record there is replaced by a signed one of the same bytes from here.
                let signs = self.result(*key).join(&*record).join(ATTESTATION).exists()
                    && is_unsigned(&target.result(*key).join(&*record));
                if !signs && target.read_manifest(*key, &record)?.is_some_and(|m| target.is_whole(&m)) {
                    copied.there += 1;
                } else {
                    staged.push(self.stage_copy(target, *key, record, copied)?);
                }
            }
        }
        Ok(())
    }

    fn stage_copy(&self, target: &Store, key: Key, record: Box<str>, copied: &mut Copied) -> Result<Staged> {
        self.check_preimage(key, &record)?;
        for (object, _) in self.objects_held(key, &record)? {
            if let Some(bytes) = self.copy_object(target, object)? {
                copied.objects += 1;
                copied.bytes += bytes;
            }
        }
        let folder = target.result(key);
        super::make_folder(&folder)?;
        let aside = folder.join(target.unique());
        copy_folder(&self.result(key).join(&*record), &aside)?;
        Ok(Staged { key, record, aside })
    }

    /// Returns the bytes copied, or `None` if the object already existed.
    fn copy_object(&self, target: &Store, object: Digest) -> Result<Option<u64>> {
        let (from, to) = (self.object(object), target.object(object));
        let length = fs::metadata(&from).at("read", &from)?.len();
        if fs::metadata(&to).is_ok_and(|m| m.len() == length) {
            return Ok(None);
        }
        let aside = target.aside();
        copy_file(&from, &aside)?;
        // Read the written copy, which detects a flipped bit on either side.
        let found = digest::of_file(&aside).at("read", &aside)?;
        if found != object {
            let _ = fs::remove_file(&aside);
            let why = "its bytes do not match the digest in its name; run `caco cache verify`".into();
            return Err(Error::Damaged { path: from, why });
        }
        fs::set_permissions(&aside, fs::Permissions::from_mode(0o444)).at("change the mode of", &aside)?;
        super::make_folder(to.parent().expect("objects are in a shard"))?;
        fs::rename(&aside, &to).at("write", &to)?;
        Ok(Some(length))
    }

    fn reveal_copy(&self, staged: &Staged, from: &Store, copied: &mut Copied) -> Result<()> {
        let folder = self.result(staged.key);
        let place = folder.join(&*staged.record);
        let before = self.current(staged.key)?;
        if place.exists() {
            // It existed, but without all of its objects, or without a signature.
            self.replace(&place, &staged.aside)?;
        } else {
            fs::rename(&staged.aside, &place).at("publish", &folder)?;
        }
        self.drop_tombstones(staged.key)?;
        self.catalog.remove(staged.key);
        copied.records += 1;
        match before {
            Some(before) if before != staged.record => {
                let cause = Cause::Copied(from.root.clone());
                self.note_divergence(staged.key, &before, &staged.record, cause)?;
                copied.diverges.push(staged.key);
            }
            _ => super::write_aside(&folder.join("current"), staged.record.as_bytes())?,
        }
        Ok(())
    }
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir(to).at("create", to)?;
    for entry in fs::read_dir(from).at("read", from)? {
        let entry = entry.at("read", from)?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy_folder(&path, &target)?;
        } else {
            copy_file(&path, &target)?;
        }
    }
    Ok(())
}
