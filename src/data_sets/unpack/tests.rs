//! Archives that try to write outside the target or fill the disk, and truncated ones.

use super::*;
use crate::digest::tests::archive;
use ::tar::{Builder, EntryType, Header};
use ::zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};
use std::io::{Cursor, Write};

/// A tar archive under construction.
struct Tar(Builder<Vec<u8>>);

impl Tar {
    fn new() -> Self {
        Tar(Builder::new(vec![]))
    }

    /// Adds an entry of any kind and name; a name in a header is written verbatim.
    fn with(mut self, kind: EntryType, name: &str, content: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o4777);
        if matches!(kind, EntryType::Link | EntryType::Symlink) {
            header.set_link_name_literal("/etc/passwd").unwrap();
        }
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    fn file(self, name: &str, content: &[u8]) -> Self {
        self.with(EntryType::Regular, name, content)
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A zip archive of these files, with verbatim names.
fn zipped(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(vec![]));
    for (name, content) in files {
        zip.start_file(*name, SimpleFileOptions::default().compression_method(CompressionMethod::Deflated)).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// Incompressible bytes.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..count).map(|_| next()).collect()
}

/// Unpacks bytes in a folder whose parent must not change.
fn try_with(archive: &Archive, bytes: &[u8]) -> (tempfile::TempDir, Result<()>) {
    let home = tempfile::tempdir().unwrap();
    let (from, to) = (home.path().join("archive"), home.path().join("to"));
    fs::write(&from, bytes).unwrap();
    fs::create_dir(&to).unwrap();
    let done = unpack(archive, &from, &to, &mut |_| ());
    let mut beside: Vec<_> = fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    beside.sort();
    assert_eq!(beside, ["archive", "to"]);
    (home, done)
}

fn try_as(how: Unpack, bytes: &[u8]) -> (tempfile::TempDir, Result<()>) {
    try_with(&Archive { unpack: how, ..archive("archive") }, bytes)
}

/// The error for an archive that is refused.
fn refused(how: Unpack, bytes: &[u8]) -> String {
    format!("{:#}", try_as(how, bytes).1.expect_err("it was unpacked"))
}

/// Files below `to`, with their contents.
fn files(home: &tempfile::TempDir) -> Vec<(String, Vec<u8>)> {
    let (mut found, mut open) = (vec![], vec![home.path().join("to")]);
    while let Some(folder) = open.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            match path.is_dir() {
                true => open.push(path),
                false => {
                    let name = path.strip_prefix(home.path().join("to")).unwrap().to_str().unwrap().to_string();
                    found.push((name, fs::read(path).unwrap()));
                }
            }
        }
    }
    found.sort();
    found
}

#[test]
fn files_and_folders_come_out() {
    let tar = || Tar::new().with(EntryType::Directory, "./a/", b"").file("./a/x", b"one").file("b/c/y", b"").bytes();
    let zip = zipped(&[("a/", b""), ("a/x", b"one"), ("b/c/y", b"")]);
    for (how, bytes) in [(Unpack::Tar, tar()), (Unpack::TarGz, gzip(&tar())), (Unpack::Zip, zip)] {
        let (home, done) = try_as(how, &bytes);
        done.unwrap();
        assert_eq!(files(&home), [("a/x".into(), b"one".to_vec()), ("b/c/y".into(), vec![])], "{how:?}");
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(home.path().join("to/a/x")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7111, 0, "{how:?}: a file can be executed: {mode:o}");
    }
}

#[test]
fn long_names_come_out_whole() {
    let name = format!("{}/{}/x", "a".repeat(120), "b".repeat(120));
    let mut gnu = Builder::new(vec![]);
    let mut header = Header::new_gnu();
    header.set_size(1);
    gnu.append_data(&mut header, &name, &b"1"[..]).unwrap();
    let mut pax = Builder::new(vec![]);
    pax.append_pax_extensions([("path", name.as_bytes())]).unwrap();
    let mut header = Header::new_ustar();
    header.set_size(1);
    header.set_path("short").unwrap();
    header.set_cksum();
    pax.append(&header, &b"1"[..]).unwrap();
    for bytes in [gnu.into_inner().unwrap(), pax.into_inner().unwrap()] {
        let (home, done) = try_as(Unpack::Tar, &bytes);
        done.unwrap();
        assert_eq!(files(&home), [(name.clone(), b"1".to_vec())]);
    }
}

#[test]
fn paths_that_lead_elsewhere_are_refused() {
    for name in ["../x", "a/../../x", "a/..", "/tmp/x", "//x"] {
        for how in [Unpack::Tar, Unpack::Zip] {
            let bytes = if how == Unpack::Zip { zipped(&[(name, b"1")]) } else { Tar::new().file(name, b"1").bytes() };
            let error = refused(how, &bytes);
            assert!(error.contains("it would leave the folder"), "{how:?} {name}: {error}");
            assert!(error.contains(name) && error.contains("/archive"), "{how:?} {name}: {error}");
        }
        let error = refused(Unpack::Tar, &Tar::new().with(EntryType::Directory, name, b"").bytes());
        assert!(error.contains("it would leave the folder"), "{name}: {error}");
    }
    let mut pax = Builder::new(vec![]);
    pax.append_pax_extensions([("path", b"../x".as_slice())]).unwrap();
    let bytes = pax.into_inner().unwrap();
    let bytes = [&bytes[..1024], &Tar::new().file("x", b"1").bytes()].concat();
    assert!(refused(Unpack::Tar, &bytes).contains("'../x': its path has '..' in it"));
}

#[test]
fn entries_other_than_files_and_folders_are_refused() {
    let kinds = [
        (EntryType::Symlink, "a symbolic link"),
        (EntryType::Link, "a hard link"),
        (EntryType::Char, "a device"),
        (EntryType::Block, "a device"),
        (EntryType::Fifo, "a pipe"),
        (EntryType::GNUSparse, "a sparse file"),
        (EntryType::new(b'V'), "the unknown kind 'V'"),
    ];
    for (kind, what) in kinds {
        let error = refused(Unpack::Tar, &Tar::new().with(kind, "link", b"").bytes());
        assert!(error.contains("entry 'link': it is") && error.contains(what), "{error}");
    }
    let mut zip = ZipWriter::new(Cursor::new(vec![]));
    zip.add_symlink("link", "/etc/passwd", SimpleFileOptions::default()).unwrap();
    let error = refused(Unpack::Zip, &zip.finish().unwrap().into_inner());
    assert!(error.contains("entry 'link': it is a symbolic link"), "{error}");
}

#[test]
fn nothing_is_written_over() {
    let error = refused(Unpack::Tar, &Tar::new().file("a", b"1").file("./a", b"2").bytes());
    assert!(error.contains("there is another entry with this name"), "{error}");
    let error = refused(Unpack::Zip, &zipped(&[("a", b"1"), ("./a", b"2")]));
    assert!(error.contains("there is another entry with this name"), "{error}");
    // The crate shows the last of two entries of one name only.
    let mut bytes = zipped(&[("aa", b"1"), ("ab", b"2")]);
    let places: Vec<usize> = (0..bytes.len() - 1).filter(|at| bytes[*at..].starts_with(b"ab")).collect();
    places.into_iter().for_each(|at| bytes[at + 1] = b'a');
    let error = refused(Unpack::Zip, &bytes);
    assert!(error.contains("two entries of the archive have the same name"), "{error}");
    // A file where a folder is needed.
    let error = refused(Unpack::Tar, &Tar::new().file("a", b"1").file("a/b", b"2").bytes());
    assert!(error.contains("entry 'a/b'"), "{error}");
}

#[test]
fn bombs_are_stopped() {
    let zeros = vec![0; 1 << 20];
    let tar = Tar::new().file("a", &zeros).file("b", &zeros).bytes();
    let zip = zipped(&[("a", &zeros), ("b", &zeros)]);
    for (how, bytes) in [(Unpack::Tar, tar.clone()), (Unpack::TarGz, gzip(&tar)), (Unpack::Zip, zip)] {
        let with = |unpacked| Archive { unpack: how, unpacked: Some(unpacked), ..archive("archive") };
        try_with(&with(2 << 20), &bytes).1.unwrap();
        let (home, done) = try_with(&with((2 << 20) - 1), &bytes);
        let error = format!("{:#}", done.unwrap_err());
        assert!(error.contains("entry 'b': the archive exceeds the limit of 2097151 bytes"), "{error}");
        assert!(!home.path().join("to/b").exists(), "{how:?}: it was written before it was counted");
    }
}

#[test]
fn entries_are_counted() {
    let home = tempfile::tempdir().unwrap();
    let bytes = Tar::new().file("a", b"").with(EntryType::Directory, "b", b"").file("c", b"").bytes();
    let mut progress = |_: u64| ();
    let mut target = Target::new(home.path(), Limits { entries: 2, ..Limits::default() }, &mut progress);
    let error = format!("{:#}", super::tar::unpack(&bytes[..], &mut target).unwrap_err());
    assert_eq!(error, "entry 'c': the archive exceeds the limit of 2 entries");
}

#[test]
fn an_endless_name_is_not_read() {
    let name = vec![b'a'; 1 << 20];
    let bytes = gzip(&Tar::new().with(EntryType::GNULongName, "x", &name).file("x", b"").bytes());
    let error = refused(Unpack::TarGz, &bytes);
    assert!(error.contains("a name or header of 1048576 bytes; the limit is 65536"), "{error}");
}

#[test]
fn endless_padding_is_not_read() {
    let mut bytes = Tar::new().file("a", b"1").bytes();
    bytes.resize(bytes.len() + (8 << 20), 0);
    let mut progress = |_: u64| ();
    let home = tempfile::tempdir().unwrap();
    let limits = Limits { bytes: 1000, entries: 10 };
    let error = super::tar::unpack(&bytes[..], &mut Target::new(home.path(), limits, &mut progress)).unwrap_err();
    assert!(format!("{error:#}").contains("it exceeds the size limit"), "{error:#}");
}

#[test]
fn wrong_lengths_are_refused() {
    // The zip says 3 bytes in its directory; 5 come out.
    let mut zip = zipped(&[("a", b"12345")]);
    let directory = zip.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
    zip[directory + 24] = 3;
    let error = refused(Unpack::Zip, &zip);
    assert!(error.contains("entry 'a'") && error.contains("5 bytes, the archive says 3"), "{error}");
    let mut pax = Builder::new(vec![]);
    pax.append_pax_extensions([("size", b"1000000".as_slice())]).unwrap();
    let bytes = [&pax.into_inner().unwrap()[..1024], &Tar::new().file("x", b"1").bytes()].concat();
    assert!(refused(Unpack::Tar, &bytes).contains("a pax header sets the length of a file"));
}

#[test]
fn flipped_bits_are_detected() {
    let content = noise(4000);
    let mut zip = zipped(&[("a", &content)]);
    zip[2000] ^= 1;
    refused(Unpack::Zip, &zip);
    let mut tar = gzip(&Tar::new().file("a", &content).bytes());
    tar[2000] ^= 1;
    refused(Unpack::TarGz, &tar);
}

#[test]
fn entries_that_share_bytes_are_refused() {
    let mut zip = zipped(&[("a", b"12345"), ("b", b"12345")]);
    let second = zip.windows(4).rposition(|w| w == b"PK\x01\x02").unwrap();
    // The second entry of the directory points to the first file.
    zip[second + 42..second + 46].fill(0);
    let error = refused(Unpack::Zip, &zip);
    assert!(error.contains("its entries 'a' and 'b' overlap"), "{error}");
}

#[test]
fn truncated_archives_are_refused() {
    let content = noise(1200);
    let tar = Tar::new().file("a", &content).file("b", b"2").with(EntryType::Directory, "c", b"").bytes();
    let zip = zipped(&[("a", &content), ("b", b"2")]);
    // Two empty blocks end a tar; one is enough to prove that nothing is missing.
    let end = tar.len() - 512;
    for (how, bytes, end) in
        [(Unpack::Tar, &tar, end), (Unpack::TarGz, &gzip(&tar), usize::MAX), (Unpack::Zip, &zip, usize::MAX)]
    {
        try_as(how, bytes).1.unwrap();
        // Every tenth byte, and every boundary between blocks.
        for length in (0..bytes.len().min(end)).filter(|length| length % 10 == 0 || length % 512 == 0) {
            let error = refused(how, &bytes[..length]);
            assert!(error.contains("truncated") || error.contains("damaged"), "{how:?} of {length} bytes: {error}");
        }
    }
}

#[test]
fn a_nested_archive_is_unpacked_in_place() {
    let inner = gzip(&Tar::new().file("images/x", b"1").bytes());
    let bytes = zipped(&[("set/images.tar.gz", &inner), ("set/other", b"2")]);
    let with = |nested: &str, unpacked| Archive {
        unpack: Unpack::Zip,
        nested: vec![nested.into()],
        unpacked: Some(unpacked),
        into: "deep".into(),
        ..archive("archive")
    };
    let (home, done) = try_with(&with("set/images.tar.gz", 10_000), &bytes);
    done.unwrap();
    let names: Vec<String> = files(&home).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["deep/set/images/x", "deep/set/other"]);
    let error = |archive: &Archive| format!("{:#}", try_with(archive, &bytes).1.unwrap_err());
    assert!(error(&with("set/none.tar", 10_000)).contains("cannot unpack set/none.tar of"));
    assert!(error(&with("set/other", 10_000)).contains("'other' does not end in .tar"));
    // The contents of the nested archive count as well.
    assert!(error(&with("set/images.tar.gz", inner.len() as u64 + 1)).contains("exceeds the limit of"));
}
