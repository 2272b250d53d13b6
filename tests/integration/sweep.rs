//! Sweeps: their points, their names, and rerunning a killed sweep.

use crate::project::{Project, without_keys};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Stdio,
    thread::sleep,
    time::Duration,
};

/// A stage whose metric is a function of its parameters, and a sweep of it.
fn swept(sweep: &str) -> Project {
    Project::with(&format!(
        r#"(
    each_variant: {{
        "data": command(shell: "echo data > out", outputs: ["out"]),
        "train": command(
            shell: "echo \"{{\\\"score\\\": $(awk \"BEGIN {{print $rate * 10 + $seed}}\")}}\" > m.json",
            inputs: {{"data": Stage("data")}},
            outputs: [],
            metrics: "m.json",
            parameters: {{"rate": 0.1, "seed": 0, "kind": "a"}},
            parameters_as: Environment,
        ),
    }},
    sweeps: {{"s": ({sweep})}},
)"#
    ))
}

const GRID: &str = r#"
    axes: {"rate": (set: ["train.parameters.rate"], values: [0.1, 0.3, 1.0])},
    seeds: (set: ["train.parameters.seed"], count: 2),
"#;

fn stages(project: &Project) -> Vec<String> {
    let plan = project.json(&["plan", "p.ron", "--json"]);
    let mut names: Vec<String> =
        plan.as_array().unwrap().iter().map(|s| s["stage"].as_str().unwrap().to_string()).collect();
    names.retain(|name| name.starts_with("train"));
    names
}

#[test]
fn a_grid_has_a_point_for_every_combination_and_shared_work_runs_once() {
    let project = swept(GRID);
    let ran = project.run(&[]);
    assert_eq!(ran.iter().filter(|name| name.starts_with("train")).count(), 6);
    assert_eq!(ran.iter().filter(|name| name.starts_with("data")).count(), 1, "{ran:?}");
    assert!(ran.contains(&"train/s/rate=0.3,seed=1".to_string()), "{ran:?}");
    insta::assert_snapshot!(without_keys(&project.ok(&["sweep", "p.ron"]).out));
    insta::assert_snapshot!(project.ok(&["sweep", "p.ron", "--csv", "--sort", "score"]).out);
    let json = project.json(&["sweep", "p.ron", "--json"]);
    let best = &json[0]["rows"][json[0]["best"].as_u64().unwrap() as usize];
    assert_eq!((best["axes"]["rate"].as_str(), best["metrics"]["score"]["mean"].as_f64()), (Some("1"), Some(10.5)));
    let alone = best["alone"].as_str().unwrap().replace('\'', "");
    let args: Vec<&str> = alone.split(' ').skip(1).collect();
    assert!(project.ok(&args).err.contains("nothing to do"), "the command that it names runs the point");
}

#[test]
fn a_new_value_adds_points_and_renames_none() {
    let project = swept(GRID);
    let before = stages(&project);
    project.run(&[]);
    project.edit("[0.1, 0.3, 1.0]", "[0.03, 0.1, 0.3, 1.0]");
    let after = stages(&project);
    assert!(before.iter().all(|name| after.contains(name)) && after.len() == before.len() + 2, "{after:?}");
    let ran = project.run(&[]);
    assert_eq!(ran, ["train/s/rate=0.03,seed=0", "train/s/rate=0.03,seed=1"]);
}

#[test]
fn axes_are_lists_ranges_zips_draws_and_named_values() {
    let points = |sweep: &str| -> Vec<String> {
        stages(&swept(sweep)).iter().map(|name| name["train/s/".len()..].to_string()).collect()
    };
    let rate = "set: [\"train.parameters.rate\"]";
    let seed = "set: [\"train.parameters.seed\"]";
    let kind = "set: [\"train.parameters.kind\"]";
    let axes = |axes: &str| points(&format!("axes: {{{axes}}}"));
    assert_eq!(
        axes(&format!("\"r\": ({rate}, range: (from: 0.1, to: 0.4, step: 0.1))")),
        ["r=0.1", "r=0.2", "r=0.3", "r=0.4"]
    );
    assert_eq!(axes(&format!("\"r\": ({rate}, range: (from: 2, to: 6, step: 2))")), ["r=2", "r=4", "r=6"]);
    assert_eq!(
        axes(&format!("\"r\": ({rate}, log_range: (from: 1e-4, to: 0.1, count: 4))")),
        ["r=0.0001", "r=0.001", "r=0.01", "r=0.1"]
    );
    assert_eq!(axes(&format!("\"k\": ({kind}, values: [\"x y\", \"z\"])")), ["k=x-y", "k=z"]);
    assert_eq!(axes(&format!("\"k\": ({kind}, values: {{\"one\": [1], \"two\": [1, 2]}})")), ["k=one", "k=two"]);
    let zipped =
        format!("axes: {{\"r\": ({rate}, values: [1, 2]), \"s\": ({seed}, values: [7, 8])}}, zip: [[\"r\", \"s\"]]");
    assert_eq!(points(&zipped), ["r=1,s=7", "r=2,s=8"]);
    let filtered = format!("axes: {{\"r\": ({rate}, values: [1, 2, 3])}}, filter: \"r != 2\"");
    assert_eq!(points(&filtered), ["r=1", "r=3"]);
    let drawn = |draws: u32, seed: u32| {
        points(&format!("axes: {{\"r\": ({rate}, random: LogUniform(1e-3, 1.0))}}, draws: {draws}, seed: {seed}"))
    };
    assert_eq!(drawn(3, 0), drawn(5, 0)[..3], "more draws leave the first as they are");
    assert_ne!(drawn(3, 0), drawn(3, 1));
}

#[test]
fn an_invalid_sweep_is_reported_with_its_location() {
    let rate = "set: [\"train.parameters.rate\"]";
    let cases = [
        (format!("axes: {{\"r\": ({rate})}}"), "has 0 of `values`"),
        (format!("axes: {{\"r\": ({rate}, values: [])}}"), "has no values"),
        ("axes: {\"r\": (set: [\"tran.parameters.rate\"], values: [1])}".into(), "did you mean 'train'?"),
        ("axes: {\"r\": (set: [\"train.parameters.rte\"], values: [1])}".into(), "no entry 'rte'"),
        ("axes: {\"r\": (set: [\"train.no\"], values: [1])}".into(), "unknown field 'no'"),
        (format!("axes: {{\"r\": ({rate}, range: (from: 1, to: 0, step: 1))}}"), "has no values, or too many"),
        (format!("axes: {{\"r\": ({rate}, log_range: (from: 0, to: 1, count: 3))}}"), "two positive numbers"),
        (format!("axes: {{\"r\": ({rate}, random: Uniform(0.0, 1.0))}}"), "does not set the number of draws"),
        (format!("axes: {{\"r\": ({rate}, values: [1, 2])}}, filter: \"q > 1\""), "'q' is not known"),
        (format!("axes: {{\"r\": ({rate}, values: [1, 2])}}, filter: \"r > 5\""), "leaves none of 2 points"),
        (format!("axes: {{\"r\": ({rate}, values: [1, 2])}}, zip: [[\"r\", \"q\"]]"), "no axis 'q'"),
        (format!("axes: {{\"r\": ({rate}, values: [\"a b\", \"a-b\"])}}"), "two points of sweep 's' are called"),
        (format!("axes: {{\"r\": ({rate}, values: [(a: 1)])}}"), "needs a name"),
        (format!("axes: {{\"r\": ({rate}, values: [1])}}, extends: \"x\""), "no variant is called 'x'"),
        (format!("axes: {{\"r\": ({rate}, values: [1])}}, stages: [\"trai\"]"), "did you mean 'train'?"),
        ("axis: {}".into(), "a sweep has no field 'axis'"),
        ("axes: {}".into(), "has no axes"),
    ];
    for (sweep, message) in cases {
        let printed = swept(&sweep).caco(&["check", "p.ron"]);
        assert_eq!(printed.code, 1, "{sweep}");
        assert!(printed.err.contains(message) && printed.err.contains("-->"), "{sweep}\n{}", printed.err);
    }
}

#[test]
fn a_profile_shortens_a_sweep() {
    let project = swept(GRID);
    project.edit("sweeps: {", "profiles: {\"short\": (sweeps: {\"s\": (axes: {\"rate\": (values: [0.1])}, seeds: (count: 1))})},\n    sweeps: {");
    let plan = project.json(&["plan", "p.ron", "--profile", "short", "--json"]);
    assert_eq!(plan.as_array().unwrap().len(), 2);
}

#[test]
fn failed_points_are_listed_and_run_again_alone() {
    let project = swept(GRID);
    project.edit("echo \\\"{", "test $rate != 0.3 || { echo no good rate >&2; exit 3; }; echo \\\"{");
    let printed = project.caco(&["run", "p.ron", "--keep-going"]);
    assert_eq!(printed.code, 1);
    let printed = project.ok(&["sweep", "p.ron"]).out;
    assert!(printed.contains("failed: train/s/rate=0.3,seed=1: no good rate"), "{printed}");
    assert!(printed.contains("caco run p.ron 'train/s/rate=0.3,seed=1'"), "{printed}");
    let json = project.json(&["sweep", "p.ron", "--json", "--filter", "rate < 0.5", "--each"]);
    let states: Vec<&str> = json[0]["rows"].as_array().unwrap().iter().map(|r| r["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["done", "done", "failed", "failed"]);
    project.edit("test $rate != 0.3", "true");
    project.ok(&["run", "p.ron", "train/s/rate=0.3,seed=1"]);
    let json = project.json(&["sweep", "p.ron", "--json"]);
    assert_eq!(json[0]["rows"][1]["done"], 1);
}

#[test]
fn a_killed_sweep_does_only_what_is_left() {
    const POINTS: usize = 300;
    let started = tempfile::NamedTempFile::new().unwrap();
    // The log of starts is outside the stage's folder, so the stage is not confined.
    let project = Project::with(&format!(
        r#"(
    each_variant: {{
        "work": command(
            shell: "echo $x.$seed >> {}; sleep 0.005; echo $x $seed > out",
            outputs: ["out"],
            parameters: {{"x": 0, "seed": 0}},
            parameters_as: Environment,
            isolation: None,
        ),
    }},
    sweeps: {{"s": (
        axes: {{"x": (set: ["work.parameters.x"], range: (from: 1, to: 100, step: 1))}},
        seeds: (set: ["work.parameters.seed"], count: 3),
    )}},
)"#,
        started.path().display()
    ));
    let starts = || -> Vec<String> { fs::read_to_string(started.path()).unwrap().lines().map(String::from).collect() };
    let done = || -> BTreeSet<String> {
        let json = project.json(&["sweep", "p.ron", "--each", "--json"]);
        let rows = json[0]["rows"].as_array().unwrap();
        let name = |row: &serde_json::Value| {
            format!("{}.{}", row["axes"]["x"].as_str().unwrap(), row["axes"]["seed"].as_str().unwrap())
        };
        rows.iter().filter(|row| row["state"] == "done").map(name).collect()
    };
    let mut pause = 40;
    let mut before = BTreeSet::new();
    let mut seen = 0;
    for _ in 0..10 {
        let mut run = project.command(&["run", "p.ron"]).stderr(Stdio::null()).spawn().unwrap();
        // A linear congruential generator.
        pause = (pause * 1103 + 12345) % 350;
        sleep(Duration::from_millis(60 + pause));
        run.kill().unwrap();
        run.wait().unwrap();
        let now = starts();
        let again: BTreeSet<String> = now[seen..].iter().cloned().collect();
        assert!(again.is_disjoint(&before), "a finished point ran again: {:?}", again.intersection(&before));
        seen = now.len();
        before = done();
    }
    project.ok(&["run", "p.ron"]);
    assert!(starts()[seen..].iter().all(|point| !before.contains(point)));
    assert_eq!(done().len(), POINTS);
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    starts().into_iter().for_each(|point| *counts.entry(point).or_default() += 1);
    assert_eq!(counts.len(), POINTS);
    // Stages in flight at a kill are those running in parallel and those being published.
    let again: usize = counts.values().map(|n| n - 1).sum();
    assert!(again <= 10 * 64, "{again} starts were repeated");
    assert!(project.ok(&["run", "p.ron"]).err.contains("nothing to do"));
    assert!(project.holds_no_lock());
}

#[test]
fn a_log_range_between_whole_numbers_has_whole_numbers() {
    let values = |range: &str| {
        let project = Project::with(&format!(
            r#"(
    each_variant: {{"t": command(shell: "echo $@ > o", outputs: ["o"], parameters: {{"k": 1}})}},
    sweeps: {{"s": (axes: {{"k": (set: ["t.parameters.k"], log_range: ({range}))}})}},
)"#
        ));
        let ran = project.run(&[]);
        let value = |stage: &String| {
            project.ok(&["get", &format!("{stage}/o"), "got"]);
            project.read("got").trim().trim_start_matches("--k=").to_string()
        };
        ran.iter().map(value).collect::<BTreeSet<String>>()
    };
    let expected = |values: &[&str]| values.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
    assert_eq!(values("from: 16, to: 256, count: 5"), expected(&["16", "32", "64", "128", "256"]));
    assert_eq!(values("from: 16.0, to: 64.0, count: 3"), expected(&["16.0", "32.0", "64.0"]));
    assert_eq!(values("from: 1, to: 10, count: 3"), expected(&["1.0", "3.16228", "10.0"]));
}

#[test]
fn integers_of_the_whole_range_are_drawn_and_too_many_are_an_error() {
    let text = r#"(
    each_variant: {"t": command(shell: "echo $@ > o", outputs: ["o"], parameters: {"k": 1})},
    sweeps: {"s": (draws: DRAWS, axes: {"k": (set: ["t.parameters.k"], random: Integers(-9223372036854775808, 9223372036854775807))})},
)"#;
    assert_eq!(Project::with(&text.replace("DRAWS", "3")).run(&[]).len(), 3);
    let printed = Project::with(&text.replace("DRAWS", "4000000000")).caco(&["check", "p.ron"]);
    assert!(printed.code == 1 && printed.err.contains("4000000000 values are too many"), "{}", printed.err);
}
