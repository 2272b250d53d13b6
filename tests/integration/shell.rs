//! Lines of shell: where they end, and how they are written.

use crate::project::Project;

fn stage(line: &str) -> Project {
    let line = line.replace('\\', "\\\\").replace('"', "\\\"");
    Project::with(&format!("(stages: {{\"s\": command(shell: \"{line}\", outputs: [\"o\"])}})"))
}

#[test]
fn a_line_ends_at_the_first_failure_in_a_pipe_and_in_a_substitution_too() {
    for (line, why) in [
        ("false; echo 1 > o", "exit code 1"),
        ("(echo 1; exit 3) | sort > o", "exit code 3"),
        ("(exit 4) | cat | cat > o", "exit code 4"),
        ("found=$(exit 5; echo 1); echo $found > o", "exit code 5"),
        ("found=$(false; echo 1); echo $found > o", "exit code 1"),
        ("echo $unset > o", "unbound variable"),
        ("while :; do echo 1; done | head -1 > o", "a pipe whose reader had ended"),
    ] {
        let printed = stage(line).caco(&["run", "p.ron"]);
        assert!(printed.code == 1 && printed.err.contains(why), "{line}: {}", printed.err);
    }
    for line in [
        "echo 1 | grep 2 | wc -l > o || true",
        "{ false || echo 1; } | sort > o",
        "if false | cat; then :; fi; echo 1 > o",
    ] {
        stage(line).ok(&["run", "p.ron"]);
    }
}

#[test]
fn a_line_is_executed_by_bash_whatever_path_the_stage_is_given() {
    let project = Project::with(
        r#"(stages: {"s": command(shell: "echo $BASH_VERSION $0 $@ > o", outputs: ["o"], env: {"PATH": "/none"}, parameters: {"k": 1})})"#,
    );
    project.run(&[]);
    project.ok(&["get", "s/o", "got"]);
    assert!(project.read("got").ends_with(" bash --k=1\n"), "{}", project.read("got"));
}

#[test]
fn how_lines_of_the_file_end_is_no_part_of_a_string() {
    let text = "(stages: {\n  \"s\": command(shell: \"echo 1 > o\n    echo 2 >> o\n\", outputs: [\"o\"]),\n})\n";
    let project = Project::with(&text.replace('\n', "\r\n"));
    assert_eq!(project.run(&[]), ["s"]);
    project.ok(&["get", "s/o", "got"]);
    assert_eq!(project.read("got"), "1\n2\n");
    project.write("p.ron", text);
    assert_eq!(project.run(&[]), [""; 0], "the same stage");
    project.write("p.ron", "(stages: {\r\n  \"s\": command(shel: \"\"),\r\n})\r\n");
    assert!(project.caco(&["check", "p.ron"]).err.contains("p.ron:2:"), "lines are counted as before");
}
