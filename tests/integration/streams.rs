//! Streams that are closed or full, and what is printed on a terminal.

use crate::{
    project::{Printed, Project, caco_path, printed},
    terminal::Terminal,
};
use std::{fs::File, io::pipe, process::Stdio};

const PIPELINE: &str = r#"(stages: {"a": command(shell: "echo 1 > o", outputs: ["o"])})"#;

fn full() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

/// A pipe that nobody reads.
fn closed() -> Stdio {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    writer.into()
}

fn caco(project: &Project, args: &[&str], out: Stdio, err: Stdio) -> Printed {
    printed(project.command(args).stdout(out).stderr(err).spawn().unwrap().wait_with_output().unwrap())
}

#[test]
fn messages_that_nobody_can_read_stop_no_run() {
    for err in [full, closed] {
        let project = Project::with(PIPELINE);
        assert_eq!(caco(&project, &["run", "p.ron"], Stdio::null(), err()).code, 0);
        assert_eq!(project.run(&[]), [""; 0], "the result is there");
        assert_eq!(caco(&project, &["get", "a/o", "got"], Stdio::null(), err()).code, 0);
        assert_eq!(project.read("got"), "1\n");
        project.edit("echo 1", "exit 3; echo 1");
        assert_eq!(caco(&project, &["-vv", "run", "p.ron"], Stdio::null(), err()).code, 1);
        assert_eq!(caco(&project, &["run", "none.ron"], Stdio::null(), err()).code, 1);
        assert_eq!(caco(&project, &["keys"], Stdio::null(), err()).code, 2);
    }
    let project = Project::with(PIPELINE);
    let mut shell = project.program("sh");
    shell.args(["-c", "\"$1\" run p.ron 2>&- >&-", "sh"]).arg(caco_path());
    assert_eq!(shell.status().unwrap().code(), Some(0));
}

#[test]
fn data_that_is_not_wanted_is_no_error_and_data_that_is_lost_is_one() {
    let project = Project::with(PIPELINE);
    project.run(&[]);
    for args in [&["show", "a"][..], &["show", "a", "--json"], &["run", "p.ron", "--json"], &["log", "a"]] {
        assert_eq!(caco(&project, args, closed(), Stdio::piped()).code, 0, "{args:?}");
    }
    for args in [&["show", "a"][..], &["show", "a", "--json"], &["run", "p.ron", "--json"], &["get", "a/o", "-"]] {
        let printed = caco(&project, args, full(), Stdio::piped());
        assert!(printed.code == 1 && printed.err.contains("cannot write to stdout: No space left"), "{printed:?}");
    }
}

/// Prints control characters, and bytes that are no text.
const CONTROLS: &str = r#"(stages: {
    "s": command(shell: "printf 'before\\033]0;title\\007\\033[2J\\377\\n10%%\\r20%%\\n'; touch o; exit CODE", outputs: ["o"]),
})"#;

#[test]
fn control_characters_of_a_log_reach_no_terminal() {
    let project = Project::with(&CONTROLS.replace("CODE", "3"));
    let printed = project.caco(&["run", "p.ron"]);
    assert!(printed.err.contains("| before\\x1b]0;title\\x07\\x1b[2J\u{fffd}\n  | 20%\n"), "{}", printed.err);
    let project = Project::with(&CONTROLS.replace("CODE", "0"));
    project.run(&[]);
    let raw = project.command(&["log", "s"]).output().unwrap().stdout;
    assert_eq!(raw, b"before\x1b]0;title\x07\x1b[2J\xff\n10%\r20%\n", "a pipe gets the bytes");
    for args in [&["log", "s"][..], &["log", "s", "--follow"]] {
        let (code, shown) = Terminal::start(&project, args, 10, 80, &[]).end();
        assert_eq!((code, shown.trim_end()), (0, "before\\x1b]0;title\\x07\\x1b[2J\n10%\\r20%"));
    }
}

#[test]
fn an_output_is_printed_as_it_is() {
    let project = Project::with(
        r#"(stages: {"a": command(shell: "printf 'a\\377\\033' > o; mkdir d; touch d/f", outputs: ["o", "d"])})"#,
    );
    project.run(&[]);
    let output = project.command(&["get", "a/o", "-"]).output().unwrap();
    assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"a\xff\x1b"[..], &b""[..]));
    let folder = project.caco(&["get", "a/d", "-"]);
    assert!(folder.code == 1 && folder.err.contains("'a/d' is a folder"), "{}", folder.err);
    assert!(!project.path().join("-").exists());
}
