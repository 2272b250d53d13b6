//! What `caco run` shows on a terminal, and elsewhere.

use crate::{project::Project, terminal::Terminal};
use std::{fs, path::PathBuf};

/// Two parallel stages, one of which reports its progress, and one that depends on them. All wait for a file.
const SIDE_BY_SIDE: &str = r#"(stages: {
    "train/learning-rate=0.03,seed=1": command(
        shell: "echo '{\"done\":3,\"total\":10,\"unit\":\"steps\",\"note\":\"loss 0.31\"}' > $CACO_PROGRESS; while ! test -e $GO/go; do sleep 0.02; done; echo 1 > o",
        outputs: ["o"], pass_env: ["GO"], isolation: None),
    "index": command(shell: "while ! test -e $GO/go; do sleep 0.02; done; echo 2 > o", outputs: ["o"], pass_env: ["GO"], isolation: None),
    "after": command(shell: "cat i > o", inputs: {"i": Stage("index")}, outputs: ["o"]),
})"#;

/// Compares the screen with a snapshot, ignoring times.
macro_rules! assert_shown {
    ($text:expr) => {
        insta::with_settings!({filters => vec![
            (r"\d+:\d\d", "0:00"),
            (r"\b\d+\.\d+ s\b", "0.0 s"),
            (r"/[^ ]*/cache/work/[0-9a-f]+", "cache/work/KEY"),
        ]}, { insta::assert_snapshot!($text) })
    };
}

/// The folder of the running stage that reports its progress.
fn work(project: &Project) -> PathBuf {
    let folders = fs::read_dir(project.path().join("cache/work")).unwrap().flatten().map(|entry| entry.path());
    folders.into_iter().find(|folder| folder.join("progress.json").exists()).unwrap()
}

fn both_run(text: &str) -> bool {
    text.contains("3/10 steps") && text.contains("index") && text.contains("2 running")
}

#[test]
fn running_stages_have_a_line_each_and_finished_ones_scroll_above() {
    let project = Project::with(SIDE_BY_SIDE);
    let terminal = Terminal::start(&project, &["run", "p.ron", "--jobs", "2"], 12, 100, &[]);
    assert_shown!(terminal.wait_for("both stages", both_run));
    // The first report gives no rate, because it may be old. The second gives a rate and the time left.
    fs::write(work(&project).join("progress.json"), r#"{"done":6,"total":10,"unit":"steps","note":"loss 0.29"}"#)
        .unwrap();
    let text = terminal.wait_for("the rate", |text| text.contains("6/10 steps") && text.contains("/s"));
    assert!(text.contains(" left  loss 0.29"), "{text}");
    project.write("go", "");
    let (code, text) = terminal.end();
    assert_eq!(code, 0);
    // Either of the two may end first.
    let mut lines: Vec<&str> = text.lines().map(|line| line.trim_start_matches(|c| c != ']')).collect();
    lines.sort_unstable();
    assert_shown!(lines.join("\n"));
}

#[test]
fn a_narrow_terminal_shows_less_and_a_resize_leaves_nothing_behind() {
    let project = Project::with(SIDE_BY_SIDE);
    let terminal = Terminal::start(&project, &["run", "p.ron", "--jobs", "2"], 12, 100, &[]);
    terminal.wait_for("both stages", both_run);
    terminal.resize(12, 40);
    let narrow = terminal.wait_for("the narrow frame", |text| text.contains("train…"));
    assert_shown!(narrow);
    // Too few rows for both: the rest is a count.
    terminal.resize(6, 100);
    terminal.wait_for("the wide frame", |text| text.contains("train/learning…") && text.contains("index"));
    terminal.resize(5, 100);
    terminal.wait_for("the low frame", |text| text.contains("… and 1 more") && !text.contains("index"));
    project.write("go", "");
    assert_eq!(terminal.end().0, 0);
}

#[test]
fn a_failed_stage_is_reported_above_the_others() {
    let project = Project::with(
        r#"(stages: {
        "bad": command(shell: "echo no such data; exit 3", outputs: ["o"]),
        "good": command(shell: "while ! test -e $GO/go; do sleep 0.02; done; echo 1 > o", outputs: ["o"], pass_env: ["GO"], isolation: None),
        "behind": command(shell: "cat i > o", inputs: {"i": Stage("bad")}, outputs: ["o"]),
    })"#,
    );
    let terminal = Terminal::start(&project, &["run", "p.ron", "--jobs", "2", "-k"], 24, 100, &[]);
    assert_shown!(terminal.wait_for("the failure", |text| text.contains("1 failed") && text.contains("1 running")));
    project.write("go", "");
    let (code, text) = terminal.end();
    assert_eq!(code, 1);
    assert_shown!(text);
}

#[test]
fn earlier_runs_forecast_how_long_it_takes() {
    let project = Project::with(
        r#"(stages: {"a": command(shell: "sleep 1; while ! test -e $GO/go; do sleep 0.02; done; echo 1 > o", outputs: ["o"], pass_env: ["GO"], isolation: None)})"#,
    );
    project.write("go", "");
    let begun = std::time::Instant::now();
    assert_eq!(Terminal::start(&project, &["run", "p.ron"], 12, 80, &[]).end().0, 0);
    let before = begun.elapsed().as_secs();
    project.edit("sleep 1", "sleep 0");
    fs::remove_file(project.path().join("go")).unwrap();
    let terminal = Terminal::start(&project, &["run", "p.ron"], 12, 80, &[]);
    let text = terminal.wait_for("its line", |text| text.contains("before") || text.contains("of about"));
    assert!(before > 5 || text.contains("about 0:0") || text.contains(" before"), "{text}");
    terminal.wait_for("the time to be over", |text| text.contains(" before"));
    project.write("go", "");
    assert_eq!(terminal.end().0, 0);
}

#[test]
fn plain_lines_where_nothing_can_or_should_be_drawn() {
    for (name, value) in [("NO_COLOR", "1"), ("CI", "true"), ("TERM", "dumb")] {
        let project = Project::with(r#"(stages: {"a": command(shell: "echo 1 > o", outputs: ["o"])})"#);
        let (code, text) = Terminal::start(&project, &["run", "p.ron"], 12, 80, &[(name, value)]).end();
        assert_eq!(code, 0, "{text}");
        assert!(text.starts_with("[0/1] a  started\n[1/1] a  done in "), "{name}: {text}");
    }
    let project = Project::with(r#"(stages: {"a": command(shell: "echo 1 > o", outputs: ["o"])})"#);
    let (_, text) = Terminal::start(&project, &["run", "p.ron", "--quiet"], 12, 80, &[]).end();
    assert!(text.starts_with("1 stage run, 0 cached"), "{text}");
}

#[test]
fn an_interrupt_leaves_a_clean_terminal() {
    let project = Project::with(SIDE_BY_SIDE);
    let terminal = Terminal::start(&project, &["run", "p.ron", "--jobs", "2"], 12, 100, &[]);
    terminal.wait_for("both stages", both_run);
    terminal.type_in("\x03");
    let (code, text) = terminal.end();
    assert_eq!(code, 130, "{text}");
    assert!(text.contains("stopping: 2 running stage(s)") && !text.contains("running  "), "{text}");
}

#[test]
fn progress_of_an_earlier_attempt_is_not_shown() {
    let project = Project::with(
        r#"(stages: {"a": command(
            shell: "if ! test -e $GO/tried; then touch $GO/tried; echo '{\"done\":3,\"total\":10}' > $CACO_PROGRESS; exit 1; fi; while ! test -e $GO/go; do sleep 0.02; done; echo 1 > o",
            outputs: ["o"], pass_env: ["GO"], isolation: None)})"#,
    );
    assert_eq!(Terminal::start(&project, &["run", "p.ron"], 12, 80, &[]).end().0, 1);
    let terminal = Terminal::start(&project, &["run", "p.ron"], 12, 80, &[]);
    // By then the progress file has been read.
    let text = terminal.wait_for("a second", |text| text.contains("1 running  0:") && !text.contains("0:00"));
    assert!(!text.contains("3/10"), "{text}");
    project.write("go", "");
    assert_eq!(terminal.end().0, 0);
}

#[test]
fn a_confined_command_may_report_its_progress() {
    let project = Project::with(
        r#"(stages: {"a": command(shell: "echo '{\"done\":1}' > $CACO_PROGRESS; cp $CACO_PROGRESS o", outputs: ["o"])})"#,
    );
    project.run(&[]);
    assert_eq!(project.ok(&["get", "a/o", "progress"]).code, 0);
    assert_eq!(project.read("progress"), "{\"done\":1}\n");
}
