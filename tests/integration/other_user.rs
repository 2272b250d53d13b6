//! A store that may only be read, as that of another user.

use crate::project::{Printed, Project, printed};
use std::{
    fs::{self, Permissions},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
};

/// Nobody's number, for tests that run as root, whom no mode stops.
const OTHER: u32 = 65534;

const PIPELINE: &str = r#"(stages: {
    "a": command(shell: "mkdir o; echo 1 > o/f", outputs: ["o"]),
    "b": command(shell: "cat i/f > o", inputs: {"i": Stage("a")}, outputs: ["o"]),
})"#;

/// Changes the modes of a folder and of the folders in it. Files keep theirs, and their change times.
fn set_mode(folder: &Path, mode: u32) {
    fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap).filter(|entry| entry.file_type().unwrap().is_dir());
    entries.for_each(|entry| set_mode(&entry.path(), mode));
    fs::set_permissions(folder, Permissions::from_mode(mode)).unwrap();
}

/// A project whose store is filled, and that may then be read by everybody and written by nobody.
fn filled() -> Project {
    let project = Project::with(PIPELINE);
    project.run(&[]);
    set_mode(project.path(), 0o555);
    project
}

/// Runs a command as who may only read. None: this user cannot execute the program under test at all.
fn caco(project: &Project, args: &[&str]) -> Option<Printed> {
    let mut command = project.command(args);
    // SAFETY: asks for a number.
    if unsafe { libc::geteuid() } == 0 {
        command.uid(OTHER).gid(OTHER);
    }
    command.output().map(printed).inspect_err(|error| eprintln!("skipped: {error}")).ok()
}

#[test]
fn who_may_only_read_a_store_runs_what_is_all_there() {
    let project = filled();
    let seen = (|| {
        let all_there = caco(&project, &["run", "p.ron"])?;
        let named_otherwise = caco(&project, &["run", "p.ron", "--set", "b.run=(retries: 1)"])?;
        let to_run = caco(&project, &["run", "p.ron", "--set", "b.shell=\"cat i/f i/f > o\""])?;
        let elsewhere = caco(&project, &["get", "b/o", "none/here", "-p", "p.ron"])?;
        let not_ours = caco(&project, &["get", "b/o", "got", "-p", "p.ron"])?;
        let shown = caco(&project, &["get", "b/o", "-", "-p", "p.ron"])?;
        Some((all_there, named_otherwise, to_run, elsewhere, not_ours, shown))
    })();
    set_mode(project.path(), 0o755);
    let Some((all_there, named_otherwise, to_run, elsewhere, not_ours, shown)) = seen else { return };
    assert!(all_there.code == 0 && all_there.err.contains("nothing to do: all 2"), "{all_there:?}");
    assert_eq!(named_otherwise.code, 0, "{named_otherwise:?}");
    assert!(to_run.code == 1 && to_run.err.contains("cache/uses/"), "{to_run:?}");
    assert!(to_run.err.contains("the store must be writable"), "{to_run:?}");
    assert!(elsewhere.code == 1 && elsewhere.err.contains("none/here: No such file"), "{elsewhere:?}");
    assert!(not_ours.code == 1 && not_ours.err.contains("cannot write got: Permission denied"), "{not_ours:?}");
    assert!(!not_ours.err.contains("the store must be writable"), "{not_ours:?}");
    assert_eq!((shown.code, shown.out.as_str(), shown.err.as_str()), (0, "1\n", ""));
}
