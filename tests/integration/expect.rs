//! Tables with an `expect`: whether a run made the published one.

use crate::project::Project;
use serde_json::Value;

/// A table of claims only, which needs no training.
const TABLE: &str = r#"(
    stages: {
        "table": compare(
            rows: [(name: "long", not_run: "no images here", claims: [
                (of: "linear_eval", metric: "top1", value: 71.3, source: "table 1"),
                (of: "linear_eval", metric: "top5", value: 90.1, source: "table 1"),
            ])],
        ),
    },
    profiles: { "strict": (set: {"table": (baseline: "long")}) },
)"#;

/// A project whose table was published: its file is `published.json`, and `expect` its digest.
fn published() -> Project {
    let project = Project::with(TABLE);
    project.ok(&["run", "p.ron"]);
    let shown = project.ok(&["show", "table"]).out;
    let line = shown.lines().find_map(|line| line.split_once("not given; for this table: ")).expect(&shown).1;
    project.ok(&["get", "table", "published.json"]);
    project.edit("rows: [", &format!("{line}, rows: ["));
    project
}

/// What `caco run --json` says of the table.
fn expectation(project: &Project, args: &[&str]) -> Value {
    project.json(&[&["run", "p.ron", "--json"], args].concat())["expectations"][0].clone()
}

#[test]
fn a_table_that_is_the_published_one_is_said_to_be_equal_and_keeps_its_key() {
    let project = published();
    let run = project.ok(&["run", "p.ron", "--expect"]);
    assert!(run.err.contains("nothing to do") && run.err.contains("table: equal to the published one"), "{}", run.err);
    assert!(run.err.trim_end().ends_with("equal to the published one"), "{}", run.err);
    assert_eq!(expectation(&project, &[])["verdict"], "equal");
    let shown = project.ok(&["show", "table"]).out;
    assert!(shown.lines().any(|line| line.starts_with("expect ") && line.ends_with("equal to the published one")));
    // Another `expect` reruns nothing.
    project.edit("expect: \"blake3:", "expect_table: \"published.json\", expect: \"blake3:");
    assert_eq!(project.run(&[]), [""; 0]);
}

#[test]
fn a_table_that_differs_is_said_to_and_its_cells_are_listed_where_the_published_one_is_given() {
    let project = published();
    project.edit("90.1", "90.2");
    let run = project.ok(&["run", "p.ron"]);
    assert!(run.err.contains("table: differs from the published one\n"), "{}", run.err);
    let found = expectation(&project, &[]);
    assert_eq!((found["verdict"].as_str(), found.get("cells")), (Some("differs"), None));
    for digest in [&found["published"], &found["found"]] {
        assert!(run.err.contains(&format!("blake3:{}", digest.as_str().unwrap())), "{}", run.err);
    }
    let strict = project.caco(&["run", "p.ron", "--expect"]);
    assert!(strict.code == 1 && strict.err.contains("differs from the published one"), "{}", strict.err);
    project.edit("expect: \"blake3:", "expect_table: \"published.json\", expect: \"blake3:");
    let run = project.ok(&["run", "p.ron"]);
    let lines: Vec<&str> = run.err.lines().skip_while(|line| !line.starts_with("table: ")).collect();
    assert_eq!(lines[0], "table: differs from the published one in 1 of 2 cells");
    assert_eq!(lines[1], "  long, linear_eval top5: claimed_per_cent 90.1 → 90.2");
    let cell = &expectation(&project, &[])["cells"][0];
    assert_eq!((cell["metric"].as_str(), cell["values"][0]["published"].as_str()), (Some("top5"), Some("90.1")));
}

#[test]
fn another_experiment_is_not_compared() {
    let project = published();
    let set = r#"table.rows=[(name: "long", not_run: "no machine here")]"#;
    let found = expectation(&project, &["--set", set]);
    assert_eq!(found["why"], "with --set it is another experiment");
    let strict = project.caco(&["run", "p.ron", "--set", set, "--expect"]);
    assert!(strict.code == 1 && strict.err.contains("table: not compared with the published one: with --set"));
    let found = expectation(&project, &["--profile", "strict"]);
    assert_eq!(found["why"], "with profile 'strict' it is another experiment");
    // What changes no key changes no experiment.
    let found = expectation(&project, &["--set", "table.run=(retries: 1)"]);
    assert_eq!(found["verdict"], "equal");
    // A profile, and the caller, can give an `expect` of their own.
    let other = project.json(&["show", "table", "--json", "-p", "p.ron", "--profile", "strict"]);
    let digest = format!("\"blake3:{}\"", other["result"]["outputs"][0]["blake3"].as_str().unwrap());
    let found = expectation(&project, &["--set", set, "--set", &format!("table.expect={digest}")]);
    assert_eq!(found["verdict"], "differs");
    project.edit("baseline: ", &format!("expect: {digest}, baseline: "));
    assert_eq!(expectation(&project, &["--profile", "strict"])["verdict"], "equal");
    assert_eq!(expectation(&project, &[])["verdict"], "equal");
    let both = expectation(&project, &["--profile", "strict", "--set", set]);
    assert_eq!(both["why"], "with --set it is another experiment");
}

#[test]
fn a_run_that_must_be_the_published_one_needs_an_expect() {
    let project = Project::with(TABLE);
    let run = project.caco(&["run", "p.ron", "--expect"]);
    assert!(run.code == 1 && run.err.contains("none of these stages has an `expect`"), "{}", run.err);
    assert!(!project.path().join("cache/records").exists() || project.run(&[]) == ["table"], "it ran");
}

#[test]
fn mistakes_in_an_expect_are_found_before_a_run() {
    let project = published();
    let digest = project.read("p.ron");
    let digest = digest.split("blake3:").nth(1).unwrap().split('"').next().unwrap().to_string();
    let wrong = |from: &str, to: &str| {
        let text = project.read("p.ron");
        project.edit(from, to);
        let check = project.caco(&["check", "p.ron"]);
        assert_eq!((check.code, project.caco(&["run", "p.ron"]).code), (1, 1), "{}", check.err);
        project.write("p.ron", &text);
        check.err
    };
    let short = wrong(&digest, "12ab");
    assert!(short.contains("stage 'table': expect is 'blake3:12ab'; give \"blake3:\" and 64 hexadecimal"), "{short}");
    assert!(short.contains("--> p.ron:4:"), "{short}");
    let capital = wrong(&digest, &digest.to_uppercase());
    assert!(capital.contains("64 hexadecimal digits"), "{capital}");
    let alone = wrong("expect: \"blake3:", "expect_table: \"published.json\", stand_in: \"");
    assert!(alone.contains("expect_table is given without `expect`"), "{alone}");
    let nowhere = wrong("expect: ", "expect_table: \"none.json\", expect: ");
    assert!(nowhere.contains("expect_table names 'none.json', which cannot be read"), "{nowhere}");
    assert!(nowhere.contains("help: `caco get STAGE FILE`"), "{nowhere}");
    project.write("edited.json", &project.read("published.json").replace("90.1", "90.3"));
    let edited = wrong("expect: ", "expect_table: \"edited.json\", expect: ");
    assert!(edited.contains("names 'edited.json', whose digest is blake3:"), "{edited}");
}
