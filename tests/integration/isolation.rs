//! What a command may open, and the message when it may not. Needs Landlock (Linux 5.13); without it a test says so and
//! passes.

use crate::project::{Printed, Project};
use std::{fs, path::Path};

pub fn landlock() -> bool {
    // SAFETY: asks for the version; no memory is involved.
    let there = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0usize, 1u32) > 0 };
    if !there {
        eprintln!("skipped: this kernel has no Landlock");
    }
    there
}

/// Runs a line of shell as a stage that writes `out`, in a project with some files. `fields` are further fields.
fn stage(line: &str, fields: &str) -> (Project, Printed) {
    let project = Project::new();
    project.write("data/secret.txt", "secret\n");
    project.write("data/declared.txt", "declared\n");
    project.write("src/helper.py", "word = 'helped'\n");
    project.write("src/main.py", "import helper\nopen('out', 'w').write(helper.word)\n");
    let line = line.replace("PROJECT", project.path().canonicalize().unwrap().to_str().unwrap()).replace('"', "\\\"");
    project.write("p.ron", &format!("(stages: {{\"s\": command(shell: \"{line}\", outputs: [\"out\"], {fields})}})"));
    let printed = project.caco(&["run", "p.ron"]);
    (project, printed)
}

#[test]
fn what_is_not_declared_is_refused_and_the_error_says_what_to_add() {
    if !landlock() {
        return;
    }
    let cases = [
        ("cat PROJECT/data/secret.txt > out", "\"data/secret.txt\": Path(\"data/secret.txt\")"),
        ("cat ../../../../data/secret.txt > out", "\"data/secret.txt\": Path(\"data/secret.txt\")"),
        ("ln -s PROJECT/data/secret.txt here; cat here > out", "\"data/secret.txt\": Path(\"data/secret.txt\")"),
        ("cd PROJECT/data && cat secret.txt > $OLDPWD/out", "\"data/secret.txt\": Path(\"data/secret.txt\")"),
        ("ls PROJECT/data > out", "\"data\": Path(\"data\")"),
        ("python3 -c 'print(open(\"PROJECT/data/secret.txt\").read())' > out", "Path(\"data/secret.txt\")"),
        ("echo x > out; echo x > PROJECT/new.txt", "outputs: [\"new.txt\"]"),
        ("echo x > out; echo x >> PROJECT/data/secret.txt", "may not write"),
        ("echo x > out; rm PROJECT/data/secret.txt", "may not write"),
        ("echo x > out; mv PROJECT/data/secret.txt PROJECT/data/moved.txt", "may not write"),
        ("echo x > out; mkdir PROJECT/made", "may not write"),
        ("echo x > out; ln PROJECT/data/secret.txt PROJECT/data/second.txt", "may not write"),
    ];
    for (line, message) in cases {
        let (project, printed) = stage(line, "");
        assert_eq!(printed.code, 1, "{line}\n{}", printed.err);
        assert!(printed.err.contains(message), "{line}\n{}", printed.err);
        assert_eq!(project.read("data/secret.txt"), "secret\n", "{line}");
        let untouched = ["new.txt", "made", "data/moved.txt", "data/second.txt"];
        assert!(untouched.iter().all(|name| !project.path().join(name).exists()), "{line}");
    }
}

#[test]
fn what_is_declared_and_what_is_its_own_is_allowed() {
    if !landlock() {
        return;
    }
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("model.bin"), "model\n").unwrap();
    let allow = format!("allow: [{:?}]", elsewhere.path());
    let model = format!("cat {}/model.bin > out", elsewhere.path().display());
    let cases = [
        ("cat in.txt > out", "inputs: {\"in.txt\": Path(\"data/declared.txt\")}"),
        ("ls in > out; cat in/secret.txt", "inputs: {\"in\": Path(\"data\")}"),
        ("echo 1 > \"$TMPDIR/a\"; f=$(mktemp); cat \"$TMPDIR/a\" > $f; cp $f out", ""),
        ("mkdir -p deep/er; echo 1 > deep/er/x; mv deep/er/x out", ""),
        ("python3 -c 'import json, tempfile; tempfile.TemporaryFile(); open(\"out\", \"w\")'", ""),
        ("python3 src/main.py", "inputs: {\"src\": Path(\"src\")}"),
        ("python3 main.py", "inputs: {\"main.py\": Path(\"src/main.py\"), \"helper.py\": Path(\"src/helper.py\")}"),
        ("head -c 4 /dev/urandom > /dev/null; date > out", ""),
        (model.as_str(), allow.as_str()),
        ("cat PROJECT/data/secret.txt > out", "isolation: None"),
    ];
    for (line, fields) in cases {
        let (_, printed) = stage(line, fields);
        assert_eq!(printed.code, 0, "{line} {fields}\n{}", printed.err);
    }
}

#[test]
fn an_input_cannot_be_changed() {
    if !landlock() {
        return;
    }
    // A small input is a copy, which the command may change.
    let line = "cat in.txt > out; chmod u+w in.txt in/*; echo changed > in.txt; echo changed > in/declared.txt";
    let inputs = "inputs: {\"in.txt\": Path(\"data/declared.txt\"), \"in\": Path(\"data\")}";
    let (project, printed) = stage(line, inputs);
    assert_eq!((printed.code, project.read("data/declared.txt").as_str()), (0, "declared\n"), "{}", printed.err);
    // A large one is not.
    project.write("data/large", &"x".repeat(17 << 20));
    let printed = project.caco(&["run", "p.ron"]);
    assert_eq!((printed.code, project.read("data/declared.txt").as_str()), (1, "declared\n"), "{}", printed.err);
    assert!(project.ok(&["log", "s"]).out.contains("Read-only file system"));
}

#[test]
fn a_module_that_is_not_declared_is_named() {
    let (_, printed) = stage("python3 main.py", "inputs: {\"main.py\": Path(\"src/main.py\")}");
    assert_eq!(printed.code, 1);
    assert!(printed.err.contains("\"helper.py\": Path(\"src/helper.py\")"), "{}", printed.err);
}

#[test]
fn the_record_says_how_it_was_confined_and_what_it_was_refused() {
    if !landlock() {
        return;
    }
    let made = |project: &Project| project.json(&["show", "s", "--json"])["result"]["made"]["conditions"].clone();
    let (project, printed) = stage("cat PROJECT/data/secret.txt || echo none > out", "");
    assert_eq!(printed.code, 0, "{}", printed.err);
    let conditions = made(&project);
    assert_eq!(conditions["isolation"], "Landlock");
    assert!(conditions["refused"][0]["path"].as_str().is_some_and(|path| path.ends_with("data/secret.txt")));
    let (project, _) = stage("echo x > out", "isolation: None");
    assert_eq!(made(&project)["isolation"], "None");
}

#[test]
fn the_bytes_and_version_of_a_tool_are_part_of_the_key() {
    use std::os::unix::fs::PermissionsExt;
    let project = Project::with("(stages: {\"s\": command(argv: [\"tool\"], outputs: [\"out\"], tools: [\"tool\"])})");
    let install = |text: &str| {
        project.write(
            "bin/tool",
            &format!("#!/bin/sh\ntest \"$1\" = --version && echo {text} && exit\necho {text} > out\n"),
        );
        fs::set_permissions(project.path().join("bin/tool"), fs::Permissions::from_mode(0o755)).unwrap();
    };
    let path = format!("{}:{}", project.path().join("bin").display(), std::env::var("PATH").unwrap());
    let caco = |args: &[&str]| crate::project::printed(project.command(args).env("PATH", &path).output().unwrap());
    let run = || {
        let printed = caco(&["run", "p.ron", "--json"]);
        assert_eq!(printed.code, 0, "{}", printed.err);
        crate::project::ran(&serde_json::from_str(&printed.out).unwrap())
    };
    install("1.0");
    assert_eq!(run(), ["s"]);
    assert!(run().is_empty());
    install("1.1");
    assert_eq!(run(), ["s"]);
    install("1.0");
    assert!(run().is_empty(), "the first version's result is still there");
    let record = project.json(&["show", "s", "--json"]);
    assert_eq!(record["result"]["made"]["conditions"]["tools"]["tool"], "1.0");
    let key = record["result"]["key"].as_str().unwrap();
    let audit = caco(&["audit", key]);
    assert_eq!(audit.code, 0, "{}{}", audit.out, audit.err);
    install("1.2");
    let audit = caco(&["audit", key]);
    assert!(audit.code == 1 && audit.out.contains("tool on PATH now holds"), "{}{}", audit.out, audit.err);
    let printed = project.caco(&["run", "p.ron"]);
    assert_eq!(printed.code, 1);
    assert!(printed.err.contains("no program 'tool' is on PATH"), "{}", printed.err);
}

#[test]
fn parameters_arrive_as_arguments_environment_or_a_file() {
    let cases = [
        ("argv: [\"sh\", \"-c\", \"echo $0 $1 > out\"]", "--list=[1,2] --rate=0.1"),
        ("shell: \"echo $1 $2 > out\"", "--list=[1,2] --rate=0.1"),
        ("shell: \"echo $list $rate > out\", parameters_as: Environment", "[1,2] 0.1"),
        (
            "shell: \"tr -d ' \\n' < in/p.json > out\", parameters_as: Json(\"in/p.json\")",
            "{\"list\":[1,2],\"rate\":0.1}",
        ),
        ("shell: \"tr -d ' \\n' < p.ron > out\", parameters_as: Ron(\"p.ron\")", "{\"list\":[1,2,],\"rate\":0.1,}"),
    ];
    for (how, expected) in cases {
        let project = Project::with(&format!(
            "(stages: {{\"s\": command({how}, outputs: [\"out\"], parameters: {{\"rate\": 0.1, \"list\": [1, 2]}})}})"
        ));
        project.run(&[]);
        project.ok(&["get", "s", "got"]);
        assert_eq!(project.read("got").trim(), expected, "{how}");
        project.edit("0.1", "0.2");
        assert_eq!(project.run(&[]), ["s"], "a parameter joins the key");
    }
}

#[test]
fn metrics_are_taken_from_the_file_that_the_stage_names() {
    let write = |text: &str| {
        let text = text.replace('"', "\\\"");
        Project::with(&format!(
            "(stages: {{\"s\": command(shell: \"echo '{text}' > m.json\", outputs: [], metrics: \"m.json\")}})"
        ))
    };
    let project = write(r#"{"accuracy": 0.75, "test": {"loss": 2}}"#);
    project.run(&[]);
    let metrics = project.json(&["show", "s", "--json"])["result"]["metrics"].clone();
    assert_eq!(metrics[0]["name"], "accuracy");
    assert_eq!((metrics[1]["split"].as_str(), metrics[1]["value"].as_f64()), (Some("test"), Some(2.0)));
    for (text, message) in [("{", "is no JSON"), (r#"{"a": "b"}"#, "holds no number")] {
        let printed = write(text).caco(&["run", "p.ron"]);
        assert!(printed.code == 1 && printed.err.contains(message), "{}", printed.err);
    }
}

#[test]
fn a_virtual_environment_may_read_the_interpreter_that_it_is_made_of() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    if !landlock() {
        return;
    }
    let software = tempfile::tempdir().unwrap();
    let at = |name: &str| software.path().join(name);
    for folder in ["python/bin", "python/lib", "venv/bin"] {
        fs::create_dir_all(at(folder)).unwrap();
    }
    fs::write(at("python/lib/word"), "found").unwrap();
    fs::write(at("python/bin/tool"), "#!/bin/sh\ncat \"$(dirname \"$(readlink -f \"$0\")\")/../lib/word\" > out\n")
        .unwrap();
    fs::set_permissions(at("python/bin/tool"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink(at("python/bin/tool"), at("venv/bin/tool")).unwrap();
    fs::write(at("venv/pyvenv.cfg"), format!("home = {}\nversion = 3\n", at("python/bin").display())).unwrap();
    for how in ["shell: \"tool\"", "argv: [\"tool\"]"] {
        let project = Project::with(&format!("(stages: {{\"s\": command({how}, outputs: [\"out\"])}})"));
        let path = format!("{}:{}", at("venv/bin").display(), std::env::var("PATH").unwrap());
        let printed = crate::project::printed(project.command(&["run", "p.ron"]).env("PATH", path).output().unwrap());
        assert_eq!(printed.code, 0, "{how}\n{}", printed.err);
    }
}

#[test]
fn a_project_inside_a_folder_of_software_is_not_granted_with_it() {
    if !landlock() {
        return;
    }
    // Like a project in /opt: PATH grants the folder around it.
    let software = tempfile::tempdir().unwrap();
    let project = software.path().join("project");
    fs::create_dir_all(&project).unwrap();
    fs::create_dir_all(software.path().join("bin")).unwrap();
    fs::write(project.join("secret.txt"), "secret").unwrap();
    let line = format!("cat {}/secret.txt > out", project.display());
    fs::write(project.join("p.ron"), format!("(stages: {{\"s\": command(shell: \"{line}\", outputs: [\"out\"])}})"))
        .unwrap();
    let run = |path: &Path| {
        let path = format!("{}:{}", path.display(), std::env::var("PATH").unwrap());
        let mut command = std::process::Command::new(crate::project::caco_path());
        command.args(["run", "p.ron"]).current_dir(&project).env("PATH", path).env("CI", "1");
        crate::project::printed(command.output().unwrap())
    };
    let printed = run(&software.path().join("bin"));
    assert!(printed.code == 1 && printed.err.contains("secret.txt"), "{}", printed.err);
}
