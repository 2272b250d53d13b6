//! The example of README, typed as it is printed there.

use crate::project::{Project, caco_path};
use std::{env, fs, path::Path};

/// The first code block of this language after a heading.
fn block<'r>(readme: &'r str, heading: &str, language: &str) -> &'r str {
    let section = readme.split_once(heading).unwrap().1;
    let text = section.split_once(&format!("```{language}\n")).unwrap().1;
    text.split_once("```").unwrap().0
}

/// Runs a line in the project's folder, with the program on PATH. Returns what a terminal would show.
fn type_in(project: &Project, line: &str) -> String {
    let path = env::join_paths(
        [caco_path().parent().unwrap().to_path_buf()]
            .into_iter()
            .chain(env::split_paths(&env::var_os("PATH").unwrap())),
    );
    let mut shell = project.program("sh");
    // One stream, so that the order is that of a terminal.
    shell.arg("-c").arg(format!("{{ {line}\n}} 2>&1")).env("PATH", path.unwrap());
    String::from_utf8(shell.output().unwrap().stdout).unwrap()
}

/// Without what differs from run to run.
fn without_times(text: &str) -> String {
    let seconds = |word: &str| word.trim_start_matches('(').parse::<f64>().is_ok() && word.contains('.');
    let line = |line: &str| {
        let words: Vec<&str> = line.split(' ').map(|word| if seconds(word) { "TIME" } else { word }).collect();
        words.join(" ")
    };
    text.trim_end().lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_example_prints_what_readme_says() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let project = Project::new();
    project.signer();
    type_in(&project, block(&readme, "## Sixty seconds", "sh"));
    project.write("fit.ron", block(&readme, "## Sixty seconds", "ron"));
    for entry in block(&readme, "## Sixty seconds", "console").split("$ ").filter(|entry| !entry.is_empty()) {
        let (line, expected) = entry.split_once('\n').unwrap();
        assert_eq!(without_times(&type_in(&project, line)), without_times(expected), "$ {line}");
    }
    let again = type_in(&project, "caco run fit.ron");
    assert!(again.contains("2 stages run, 0 cached"), "{again}");
    type_in(&project, "sed -i 's/0\\.3/0.1/' fit.ron");
    assert!(type_in(&project, "caco run fit.ron").contains("nothing to do"));
}
