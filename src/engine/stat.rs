//! Caches the digests of files by their `stat` data, so that an unchanged file is not read again. Deleting the cache
//! only costs time.
//!
//! A file counts as unchanged while size, modification time, change time, inode and device are the same. A file that
//! was written just before it was read is not cached: a second write in the same tick of the file system's clock would
//! leave no trace (git calls such entries "racily clean").

use super::digest::Digest;
use std::{
    collections::HashMap,
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::RwLock,
    time::{SystemTime, UNIX_EPOCH},
};

/// A file younger than this, in nanoseconds, is not cached. No file system in use has a coarser clock than two seconds.
const YOUNG: i128 = 2_000_000_000;
const HEADER: &[u8; 8] = b"cacost01";
const RECORD: usize = 16 + 5 * 8 + 32;

type Name = [u8; 16];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stamp {
    size: u64,
    mtime: i64,
    ctime: i64,
    inode: u64,
    device: u64,
}

impl Stamp {
    fn of(meta: &Metadata) -> Self {
        let nanos = |seconds: i64, nanos: i64| seconds.wrapping_mul(1_000_000_000).wrapping_add(nanos);
        Stamp {
            size: meta.size(),
            mtime: nanos(meta.mtime(), meta.mtime_nsec()),
            ctime: nanos(meta.ctime(), meta.ctime_nsec()),
            inode: meta.ino(),
            device: meta.dev(),
        }
    }

    fn words(self) -> [u64; 5] {
        [self.size, self.mtime as u64, self.ctime as u64, self.inode, self.device]
    }
}

/// The known digests, and the file they are stored in.
pub struct Cache {
    file: PathBuf,
    known: HashMap<Name, (Stamp, Digest)>,
    fresh: RwLock<HashMap<Name, (Stamp, Digest)>>,
}

impl Cache {
    /// Reads the cache; a missing or damaged file is an empty cache.
    pub fn load(file: &Path) -> Self {
        let bytes = fs::read(file).unwrap_or_default();
        Cache { file: file.into(), known: decode(&bytes).unwrap_or_default(), fresh: RwLock::default() }
    }

    /// A cache that knows nothing and is not kept, for files that are about to move.
    pub fn none() -> Self {
        Cache { file: PathBuf::new(), known: HashMap::new(), fresh: RwLock::default() }
    }

    /// The digest of the file at `path`, if the file has not changed since it was read.
    pub fn lookup(&self, path: &Path, meta: &Metadata) -> Option<Digest> {
        let name = name(path);
        let now = Stamp::of(meta);
        let same = |(stamp, digest): &(Stamp, Digest)| (*stamp == now).then_some(*digest);
        // What this run has read itself is newer than what an earlier one left.
        let fresh = self.fresh.read().expect("no panic while held").get(&name).and_then(same);
        fresh.or_else(|| self.known.get(&name).and_then(same))
    }

    /// Caches the digest of a file whose metadata was `meta` before it was read at `read_at`.
    pub fn insert(&self, path: &Path, meta: &Metadata, digest: Digest, read_at: SystemTime) {
        let stamp = Stamp::of(meta);
        let read_at = read_at.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as i128);
        if read_at - i128::from(stamp.mtime.max(stamp.ctime)) > YOUNG {
            self.fresh.write().expect("no panic while held").insert(name(path), (stamp, digest));
        }
    }

    /// Writes the cache to disk, if it has new entries.
    pub fn save(&self) -> io::Result<()> {
        let fresh = self.fresh.read().expect("no panic while held");
        if fresh.is_empty() {
            return Ok(());
        }
        let old = self.known.iter().filter(|(name, _)| !fresh.contains_key(*name));
        let bytes = encode(old.chain(fresh.iter()));
        if let Some(folder) = self.file.parent() {
            fs::create_dir_all(folder)?;
        }
        let aside = self.file.with_extension(format!("{}.partial", std::process::id()));
        fs::write(&aside, bytes)?;
        fs::rename(aside, &self.file)
    }
}

fn name(path: &Path) -> Name {
    use std::os::unix::ffi::OsStrExt;
    let digest = Digest::of(path.as_os_str().as_bytes());
    digest.0[..16].try_into().expect("sixteen bytes")
}

fn encode<'e>(entries: impl Iterator<Item = (&'e Name, &'e (Stamp, Digest))>) -> Vec<u8> {
    let mut bytes = HEADER.to_vec();
    for (name, (stamp, digest)) in entries {
        bytes.extend_from_slice(name);
        stamp.words().iter().for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
        bytes.extend_from_slice(&digest.0);
    }
    let check = Digest::of(&bytes);
    bytes.extend_from_slice(&check.0);
    bytes
}

fn decode(bytes: &[u8]) -> Option<HashMap<Name, (Stamp, Digest)>> {
    let (body, check) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
    if blake3::Hasher::new().update_rayon(body).finalize().as_bytes() != check {
        return None;
    }
    let records = body.strip_prefix(HEADER)?;
    let record = |r: &[u8]| {
        let word = |i: usize| u64::from_le_bytes(r[16 + 8 * i..24 + 8 * i].try_into().expect("eight bytes"));
        let stamp =
            Stamp { size: word(0), mtime: word(1) as i64, ctime: word(2) as i64, inode: word(3), device: word(4) };
        let digest = Digest(r[56..].try_into().expect("thirty-two bytes"));
        (r[..16].try_into().expect("sixteen bytes"), (stamp, digest))
    };
    Some(records.chunks_exact(RECORD).map(record).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn an_unchanged_file_is_known_and_a_changed_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (file, store) = (folder.path().join("f"), folder.path().join("s/stat.bin"));
        fs::write(&file, "one").unwrap();
        let meta = fs::metadata(&file).unwrap();
        let later = SystemTime::now() + Duration::from_secs(10);
        let cache = Cache::load(&store);
        cache.insert(&file, &meta, Digest::of(b"one"), later);
        cache.save().unwrap();
        let cache = Cache::load(&store);
        assert_eq!(cache.lookup(&file, &meta), Some(Digest::of(b"one")));
        // Same length and a reset modification time: the change time still differs.
        std::thread::sleep(Duration::from_millis(20));
        fs::write(&file, "two").unwrap();
        fs::File::options().write(true).open(&file).unwrap().set_modified(meta.modified().unwrap()).unwrap();
        assert_eq!(cache.lookup(&file, &fs::metadata(&file).unwrap()), None);
    }

    #[test]
    fn a_recently_written_file_is_not_cached() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("f");
        fs::write(&file, "one").unwrap();
        let cache = Cache::load(&folder.path().join("stat.bin"));
        cache.insert(&file, &fs::metadata(&file).unwrap(), Digest::of(b"one"), SystemTime::now());
        assert!(cache.fresh.read().unwrap().is_empty());
    }

    #[test]
    fn a_damaged_file_is_an_empty_cache() {
        let stamp = Stamp { size: 1, mtime: 2, ctime: 3, inode: 4, device: 5 };
        let entries = HashMap::from([([7; 16], (stamp, Digest::of(b"x")))]);
        let mut bytes = encode(entries.iter());
        assert_eq!(decode(&bytes).unwrap(), entries);
        bytes[30] ^= 1;
        assert!(decode(&bytes).is_none());
        assert!(decode(&bytes[..20]).is_none());
    }
}
