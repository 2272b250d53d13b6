//! A store on a full or read-only disk.
//!
//! Each test mounts a small tmpfs, which requires root and the right to mount. Otherwise it says so and passes.

use crate::{
    process::wait_for,
    project::{Printed, Project},
};
use caco_engine::store::Store;
use std::{ffi::CString, fs, path::Path};

const STAGES: usize = 6;

/// Stages that write 100 kB each; the last one reads all.
fn pipeline() -> String {
    let mut text = String::from("(stages: {\n");
    for i in 0..STAGES {
        text += &format!(
            "\"big-{i}\": command(shell: \"{{ yes text-{i} || true; }} | head -c 100000 > out; mkdir d; cp out d/copy; echo {i} > d/{i}\", \
             outputs: [\"out\", \"d\"]),\n"
        );
    }
    let inputs: String = (0..STAGES).map(|i| format!(r#""i{i}": Stage("big-{i}"), "#)).collect();
    text + &format!("\"all\": command(shell: \"cat i* | cksum > out\", inputs: {{{inputs}}}, outputs: [\"out\"])}})")
}

/// A tmpfs, unmounted when dropped.
struct Disk<'p>(&'p Path);

impl<'p> Disk<'p> {
    fn mount(at: &'p Path, options: &str) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        if mount(at, 0, options) {
            return Some(Disk(at));
        }
        eprintln!("skipped: no right to mount a tmpfs: {}", std::io::Error::last_os_error());
        None
    }

    fn change(&self, flags: libc::c_ulong, options: &str) {
        // The Landlock rules of an ended process keep its removed folder busy until the kernel frees them.
        let what = format!("a tmpfs to be mounted again with {options:?}");
        wait_for(&what, || mount(self.0, libc::MS_REMOUNT | flags, options));
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        let at = CString::new(self.0.as_os_str().as_encoded_bytes()).unwrap();
        // SAFETY: the text lives for the length of the call.
        unsafe { libc::umount2(at.as_ptr(), libc::MNT_DETACH) };
    }
}

fn mount(at: &Path, flags: libc::c_ulong, options: &str) -> bool {
    let at = CString::new(at.as_os_str().as_encoded_bytes()).unwrap();
    let options = CString::new(options).unwrap();
    // SAFETY: all texts live for the length of the call.
    unsafe { libc::mount(c"tmpfs".as_ptr(), at.as_ptr(), c"tmpfs".as_ptr(), flags, options.as_ptr().cast()) == 0 }
}

/// Checks a run on a full disk: a clear error, and an undamaged store.
fn is_clear(run: &Printed, cache: &Path, options: &str) {
    let said = &run.err;
    assert_eq!(run.code, 1, "{options}: {said}");
    assert!(said.contains(&cache.display().to_string()), "{options} names no place: {said}");
    assert!(said.contains("space"), "{options} does not say what is wrong: {said}");
    assert!(said.contains("free some space"), "{options} names no way out: {said}");
    assert!(!said.contains("panicked"), "{options}: {said}");
}

fn is_sound(cache: &Path, options: &str) {
    // If not even the store's folders could be created, there is nothing to verify.
    if let Ok(store) = Store::open(cache) {
        let check = store.verify().unwrap();
        assert_eq!(check.findings, [], "{options}");
    }
}

/// One run on a disk that is too small, then one after it was enlarged.
fn fills_up(options: &str) -> Option<bool> {
    let project = Project::with(&pipeline());
    let cache = project.path().join("cache");
    let disk = Disk::mount(&cache, options)?;
    let first = project.caco(&["run", "p.ron", "-j", "2"]);
    if first.code == 0 {
        return Some(false);
    }
    is_clear(&first, &cache, options);
    disk.change(0, "size=64m,nr_inodes=10000");
    is_sound(&cache, options);
    let outcome = project.json(&["run", "p.ron", "--json"]);
    let (ran, hits) = (outcome["ran"].as_array().unwrap().len(), outcome["hits"].as_u64().unwrap() as usize);
    assert_eq!(ran + hits, STAGES + 1, "{options}");
    is_sound(&cache, options);
    assert!(project.run(&[]).is_empty());
    Some(true)
}

#[test]
fn a_full_disk_is_reported_and_loses_nothing() {
    let mut full = 0;
    // From a disk on which the store cannot be created to one on which the last stage fails, limited by bytes and by
    // files.
    let bytes = (0..14).map(|i| format!("size={}k,nr_inodes=10000", 4 + 56 * i));
    let files = (0..14).map(|i| format!("size=64m,nr_inodes={}", 3 + 9 * i));
    for options in bytes.chain(files) {
        let Some(was_full) = fills_up(&options) else { return };
        full += u32::from(was_full);
    }
    assert!(full >= 20, "only {full} disks were full; make them smaller");
}

#[test]
fn a_read_only_store_is_reported_and_can_still_be_read() {
    let project = Project::with(&pipeline());
    let cache = project.path().join("cache");
    let Some(disk) = Disk::mount(&cache, "size=64m") else { return };
    project.ok(&["run", "p.ron", "big-0"]);
    disk.change(libc::MS_RDONLY, "size=64m");
    let plan = project.ok(&["plan", "p.ron"]);
    assert!(plan.out.contains("1 cached"), "{}", plan.out);
    let run = project.caco(&["run", "p.ron"]);
    assert_eq!(run.code, 1);
    let clear = run.err.contains("the store must be writable: choose another with --cache");
    assert!(clear && run.err.contains(&cache.display().to_string()), "{}", run.err);
    assert!(project.run(&["big-0"]).is_empty(), "a run with nothing to do writes nothing");
}
