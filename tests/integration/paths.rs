//! Paths of inputs and outputs, however they are written.

use crate::project::Project;

fn refused(pipeline: &str) -> String {
    let printed = Project::with(pipeline).caco(&["check", "p.ron"]);
    assert_eq!(printed.code, 1, "{pipeline}");
    printed.err
}

#[test]
fn a_path_is_the_same_however_it_is_written() {
    let text = r#"(stages: {
    "g": command(shell: "mkdir -p model/sub; echo 1 > model/w; echo 2 > model/sub/x; echo '{\"a\": 1}' > m.json", outputs: ["MODEL"], metrics: "METRICS"),
    "b": command(shell: "cat m/w deep/f > o", inputs: {"INPUT": Stage("REFERENCE"), "DEEP": Path("f.txt")}, outputs: ["o"],
        parameters: {"k": 1}, parameters_as: Json("PARAMETERS")),
})"#;
    let written = |paths: [&str; 6]| {
        let names = ["MODEL", "METRICS", "INPUT", "REFERENCE", "DEEP", "PARAMETERS"];
        names.iter().zip(paths).fold(text.to_string(), |text, (name, path)| text.replace(name, path))
    };
    let project = Project::with(&written(["model", "m.json", "m", "g/model", "deep/f", "given/k.json"]));
    project.write("f.txt", "f\n");
    assert_eq!(project.run(&[]), ["b", "g"]);
    project.write("p.ron", &written(["model/", "./m.json", "./m/", "g/./model//", "deep//f", "given/./k.json"]));
    assert_eq!(project.run(&[]), [""; 0]);
    project.ok(&["get", "b/./o", "got"]);
    assert_eq!(project.read("got"), "1\nf\n");
}

#[test]
fn one_path_that_is_written_in_two_ways_is_named_twice() {
    for (fields, message) in [
        (r#"outputs: ["model//w", "model/w"]"#, "'model/w' is named twice"),
        (r#"outputs: ["model/", "model/w"]"#, "'model' contains 'model/w'"),
        (r#"inputs: {"d": Path("d"), "./d/": Path("g")}, outputs: ["o"]"#, "'d' is named twice"),
        (r#"inputs: {"d/": Path("d"), "d/f": Path("g")}, outputs: ["o"]"#, "'d/f' is inside the input 'd'"),
        (r#"inputs: {"d/": Path("d")}, outputs: ["./d"]"#, "'d' is also an input"),
        (r#"outputs: ["./metrics/"]"#, "'metrics' is reserved"),
        (r#"outputs: ["a/../b"]"#, "'a/../b' is not a relative path inside"),
        (r#"outputs: ["."]"#, "'.' is not a relative path inside"),
    ] {
        let error = refused(&format!(r#"(stages: {{"a": command(shell: "", {fields})}})"#));
        assert!(error.contains(message), "{fields}: {error}");
    }
}
