//! How inputs appear in a command's folder, and what of them and of outputs counts.

use crate::{
    kernel::{Lack, without},
    project::{Printed, Project, printed},
};
use std::{
    fs::{self, File, Permissions},
    os::unix::fs::{PermissionsExt, symlink},
};

/// Every combination of what a kernel may lack.
const KERNELS: [&[Lack]; 4] = [&[], &[Lack::Landlock], &[Lack::Mounts], &[Lack::Landlock, Lack::Mounts]];

fn caco(project: &Project, lacks: &[Lack], args: &[&str]) -> Printed {
    let mut command = project.command(args);
    without(&mut command, lacks);
    printed(command.output().unwrap())
}

fn got(project: &Project, output: &str) -> String {
    project.ok(&["get", output, "-", "-p", "p.ron"]).out
}

fn set_mode(project: &Project, file: &str, mode: u32) {
    fs::set_permissions(project.path().join(file), Permissions::from_mode(mode)).unwrap();
}

/// A file of so many bytes that takes no room.
fn large(project: &Project, file: &str) {
    project.write(file, "large");
    File::options().write(true).open(project.path().join(file)).unwrap().set_len(17 << 20).unwrap();
}

/// What a stage finds of small and large inputs, of the project and of other stages, must not depend on which it is.
#[test]
fn inputs_are_files_and_folders_whatever_their_size_and_origin() {
    const LOOK: &str = "find data in out big -type l > links; find data in -type f | sort > files; \
        tar cf a.tar data in big out; tar tvf a.tar | grep -c ^l > counted || true; stat -c %F data in big out > kinds; \
        gzip -k < big | wc -c > zipped; cp -r data copy; cp -r in copy2; echo more > copy/new; mv out moved";
    for lacks in KERNELS {
        let project = Project::with(&format!(
            r#"(stages: {{
                "make": command(shell: "mkdir d; echo 1 > d/a.txt; head -c 17M /dev/zero > d/b.txt; seq 9 > s", outputs: ["d", "s"]),
                "use": command(shell: "{LOOK}", outputs: ["links", "files", "counted", "kinds", "copy"],
                    inputs: {{"data": Path("data"), "big": Path("big"), "in": Stage("make/d"), "out": Stage("make/s")}}),
            }})"#
        ));
        project.write("data/c/x.txt", "x");
        large(&project, "data/c/y.txt");
        large(&project, "elsewhere/z.txt");
        fs::create_dir(project.path().join("data/none")).unwrap();
        symlink("../elsewhere", project.path().join("data/linked")).unwrap();
        symlink("c/x.txt", project.path().join("data/x")).unwrap();
        large(&project, "big");
        let ran = caco(&project, lacks, &["run", "p.ron"]);
        assert_eq!(ran.code, 0, "{lacks:?} {ran:?}");
        assert_eq!(got(&project, "use/links"), "", "{lacks:?}");
        let files = ["data/c/x.txt", "data/c/y.txt", "data/linked/z.txt", "data/x", "in/a.txt", "in/b.txt"];
        assert_eq!(got(&project, "use/files").lines().collect::<Vec<_>>(), files, "{lacks:?}");
        assert_eq!(got(&project, "use/counted").trim(), "0", "{lacks:?}");
        assert_eq!(got(&project, "use/kinds"), "directory\ndirectory\nregular file\nregular file\n", "{lacks:?}");
        let copy = project.ok(&["get", "use/copy", "copy", "-p", "p.ron"]);
        assert!(project.path().join("copy/none").is_dir(), "{copy:?}");
        assert_eq!(project.read("copy/x"), "x");
        project.ok(&["cache", "verify"]);
        project.ok(&["audit", "p.ron"]);
    }
}

#[test]
fn no_stage_can_write_into_what_another_one_reads() {
    const DIRTY: &str = "(chmod -R u+w in d; echo DIRTY >> in; echo DIRTY >> d/f; echo DIRTY > d/new; rm -rf d/e; \
        for f in ../../../objects/*/* ../../../trees/*/*; do chmod u+w $f; echo DIRTY >> $f; done; \
        rm -rf ../../../objects ../../../results) 2> /dev/null || true; echo done > o";
    for isolation in ["None", "Landlock"] {
        for lacks in KERNELS {
            let project = Project::with(&format!(
                r#"(stages: {{
                    "make": command(shell: "echo clean > o; mkdir d; echo clean > d/f; head -c 17M /dev/zero > d/e", outputs: ["o", "d"]),
                    "dirty": command(shell: "{DIRTY}", inputs: {{"in": Stage("make/o"), "d": Stage("make/d")}}, outputs: ["o"], isolation: {isolation}),
                    "after": command(shell: "cat in d/f > o; ls d > list", inputs: {{"in": Stage("make/o"), "d": Stage("make/d"), "order": Stage("dirty")}}, outputs: ["o", "list"]),
                }})"#
            ));
            let ran = caco(&project, lacks, &["run", "p.ron"]);
            // What nothing kept from the store is noticed before anybody reads it, and made again by the next run.
            let open = lacks.contains(&Lack::Mounts) && (isolation == "None" || lacks.contains(&Lack::Landlock));
            assert!(ran.code == 0 || open, "{isolation} {lacks:?} {ran:?}");
            if ran.code == 0 {
                assert_eq!(got(&project, "after/o"), "clean\nclean\n", "{isolation} {lacks:?}");
                assert_eq!(got(&project, "after/list"), "e\nf\n", "{isolation} {lacks:?}");
            }
            if !open {
                project.ok(&["cache", "verify"]);
                project.ok(&["audit", "p.ron"]);
            }
        }
    }
}

/// What a stage does with the path of a mounted input must not reach what was mounted, nor be taken for it.
#[test]
fn a_stage_that_moves_or_replaces_a_mounted_input_fails_and_loses_nothing() {
    const MOVES: [&str; 3] = [
        "mv data old; ln -s PROJECT/data data; echo > o",
        "mv data old; ln -s PROJECT/other data; echo > o",
        "mv data o; cp -rL o data",
    ];
    for line in MOVES {
        let project = Project::new();
        let line = line.replace("PROJECT", project.path().to_str().unwrap());
        let inputs = r#"inputs: {"data/big": Path("data/big")}"#;
        let stage = format!(r#"(stages: {{"a": command(shell: "{line}", outputs: ["o"], {inputs})}})"#);
        project.write("p.ron", &stage);
        large(&project, "data/big");
        project.write("other/big", "mine");
        let ran = project.caco(&["run", "p.ron"]);
        assert!(ran.code == 1 && ran.err.contains("moved or replaced its input out/data/big"), "{line} {ran:?}");
        assert_eq!(fs::metadata(project.path().join("data/big")).unwrap().len(), 17 << 20, "{line}");
        assert_eq!(project.read("other/big"), "mine", "{line}");
    }
}

#[test]
fn other_processes_do_not_take_a_mounted_input_for_an_empty_one() {
    let project = Project::with(
        r#"(stages: {"a": command(shell: "echo $PWD > o; false", outputs: ["o"], inputs: {"big": Path("big"), "d": Path("d")})})"#,
    );
    large(&project, "big");
    large(&project, "d/f");
    // What a process outside sees while the stage runs is what is left when its runner is killed.
    project.edit("false", "touch ready; while true; do sleep 0.05; done");
    let mut run = project.command(&["run", "p.ron"]).spawn().unwrap();
    let work = || fs::read_dir(project.path().join("cache/work")).into_iter().flatten().flatten().next();
    let out = || work().map(|entry| entry.path().join("out")).filter(|out| out.join("ready").exists());
    crate::process::wait_for("the stage", || out().is_some());
    run.kill().unwrap();
    run.wait().unwrap();
    let out = out().unwrap();
    assert_eq!(fs::read_to_string(out.join("big")).unwrap(), "mounted for the stage alone");
    assert!(out.join("d/mounted for the stage alone").exists());
}

#[test]
fn a_folder_that_is_assembled_later_is_out_of_reach_too() {
    let project = Project::with(
        r#"(stages: {
            "make": command(shell: "mkdir d; echo clean > d/f", outputs: ["d"]),
            "dirty": command(shell: "while ! ls ../../../trees/*/f; do sleep 0.02; done; echo DIRTY >> $(echo ../../../trees/*/f) || true; echo > o", outputs: ["o"], isolation: None),
            "use": command(shell: "cat d/f > o", inputs: {"d": Stage("make/d")}, outputs: ["o"]),
            "late": command(shell: "cat d/f > o", inputs: {"d": Stage("make/d"), "dirty": Stage("dirty")}, outputs: ["o"]),
        })"#,
    );
    project.ok(&["run", "p.ron", "-j", "3"]);
    assert_eq!([got(&project, "use/o"), got(&project, "late/o")], ["clean\n", "clean\n"]);
    project.ok(&["cache", "verify"]);
}

#[test]
fn a_changed_executable_of_an_assembled_folder_is_noticed_before_it_is_read() {
    let project = Project::with(
        r#"(stages: {
            "make": command(shell: "mkdir d; printf '#!/bin/sh\necho clean\n' > d/run; chmod +x d/run; head -c 17M /dev/zero > d/big", outputs: ["d"]),
            "use": command(shell: "./d/run > o", inputs: {"d": Stage("make/d")}, outputs: ["o"]),
        })"#,
    );
    project.run(&[]);
    let tree = fs::read_dir(project.path().join("cache/trees")).unwrap().next().unwrap().unwrap().path();
    fs::set_permissions(tree.join("run"), Permissions::from_mode(0o755)).unwrap();
    fs::write(tree.join("run"), "#!/bin/sh\necho DIRTY\n").unwrap();
    assert_eq!(project.run(&["--force", "use"]), ["use"]);
    assert_eq!(got(&project, "use/o"), "clean\n");
}

#[test]
fn what_is_left_out_stays_out_of_a_mounted_folder() {
    let project = Project::with(
        r#"(stages: {"a": command(shell: "mkdir ORIGINAL/__pycache__; ls d > o", outputs: ["o"], isolation: None,
            inputs: {"d": Folder(path: "d", except: ["__pycache__"])})})"#,
    );
    project.edit("ORIGINAL", project.path().join("d").to_str().unwrap());
    large(&project, "d/big");
    let ran = project.caco(&["run", "p.ron"]);
    assert!(ran.code == 1 && ran.err.contains("was changed while the stage ran"), "{ran:?}");
    assert_eq!(project.run(&["--set", "a.shell=\"ls d > o\""]), ["a"]);
}

#[test]
fn a_private_file_stays_private() {
    let project = Project::with(
        r#"(stages: {"a": command(shell: "stat -c %a key run > o", outputs: ["o"], inputs: {"key": Path("key"), "run": Path("run")})})"#,
    );
    project.write("key", "secret");
    project.write("run", "");
    set_mode(&project, "key", 0o600);
    set_mode(&project, "run", 0o700);
    project.run(&[]);
    assert_eq!(got(&project, "a/o"), "600\n700\n");
}

#[test]
fn executable_bits_do_not_count_for_stages_that_read_data() {
    let project = Project::with(
        r#"(stages: {"i": index(root: Path("data")), "a": command(shell: "ls data > o", inputs: {"data": Path("data")}, outputs: ["o"])})"#,
    );
    project.write("data/class/x.png", "x");
    let keys = || ["i", "a"].map(|stage| project.json(&["plan", "p.ron", stage, "--json"])[0]["key"].to_string());
    let before = keys();
    set_mode(&project, "data/class/x.png", 0o755);
    let now = keys();
    assert!(now[0] == before[0] && now[1] != before[1], "{before:?} {now:?}");
}

#[test]
fn executable_bits_of_inputs_and_outputs_are_kept_and_count() {
    let project = Project::with(
        r#"(stages: {
            "build": command(shell: "printf '#!/bin/sh\necho hello\n' > tool; chmod 755 tool; mkdir pkg; cp tool pkg/run; head -c 17M /dev/zero >> tool", outputs: ["tool", "pkg"]),
            "use": command(shell: "head -n 2 tool > t; ./pkg/run > o; ./script >> o; test -x tool", inputs: {"tool": Stage("build/tool"), "pkg": Stage("build/pkg"), "script": Path("script")}, outputs: ["o"]),
        })"#,
    );
    project.write("script", "#!/bin/sh\necho script\n");
    set_mode(&project, "script", 0o755);
    assert_eq!(project.run(&[]), ["build", "use"]);
    assert_eq!(got(&project, "use/o"), "hello\nscript\n");
    for output in ["tool", "pkg"] {
        project.ok(&["get", &format!("build/{output}"), output, "-p", "p.ron"]);
    }
    for file in ["tool", "pkg/run"] {
        assert_eq!(fs::metadata(project.path().join(file)).unwrap().permissions().mode() & 0o777, 0o755, "{file}");
    }
    project.ok(&["audit", "p.ron"]);
    project.ok(&["cache", "verify"]);
    // A mode of the group or of others does not count.
    set_mode(&project, "script", 0o700);
    assert_eq!(project.run(&[]), [""; 0]);
    set_mode(&project, "script", 0o644);
    assert!(project.ok(&["why", "use", "-p", "p.ron"]).out.contains("script"), "the mode is named");
    assert_eq!(project.caco(&["run", "p.ron"]).code, 1, "it cannot be executed any more");
    set_mode(&project, "script", 0o755);
    assert_eq!(project.run(&[]), [""; 0]);
}

#[test]
fn empty_folders_of_inputs_and_outputs_are_kept_and_count() {
    let project = Project::with(
        r#"(stages: {
            "make": command(shell: "mkdir -p d/empty/deep only; echo 1 > d/x", outputs: ["d", "only"]),
            "use": command(shell: "find d only in -type d | sort > o", inputs: {"d": Stage("make/d"), "only": Stage("make/only"), "in": Path("in")}, outputs: ["o"]),
        })"#,
    );
    project.write("in/f", "");
    fs::create_dir(project.path().join("in/none")).unwrap();
    project.run(&[]);
    assert_eq!(got(&project, "use/o"), "d\nd/empty\nd/empty/deep\nin\nin/none\nonly\n");
    project.ok(&["get", "make/d", "d", "-p", "p.ron"]);
    assert!(project.path().join("d/empty/deep").is_dir());
    fs::create_dir(project.path().join("in/more")).unwrap();
    assert_eq!(project.run(&[]), ["use"]);
    project.ok(&["audit", "p.ron"]);
    project.ok(&["cache", "verify"]);
}

#[test]
fn what_an_input_leaves_out_is_neither_read_nor_counted() {
    let project = Project::with(
        r#"(stages: {
            "a": command(shell: "find src -type f | sort > o", outputs: ["o"],
                inputs: {"src": Folder(path: "src", except: ["**/__pycache__", ".DS_Store", "/large"])}),
        })"#,
    );
    project.write("src/m.py", "1");
    large(&project, "src/data/large");
    large(&project, "src/large");
    let all = "src/data/large\nsrc/m.py\n";
    for lacks in [&[][..], &[Lack::Mounts]] {
        let ran = caco(&project, lacks, &["run", "p.ron", "--force", "a"]);
        assert_eq!(ran.code, 0, "{lacks:?} {ran:?}");
        assert_eq!(got(&project, "a/o"), all);
    }
    project.write("src/__pycache__/m.pyc", "x");
    project.write("src/data/.DS_Store", "x");
    symlink("nowhere", project.path().join("src/data/__pycache__")).unwrap();
    assert_eq!(project.run(&[]), [""; 0]);
    // Other patterns with the same effect are the same input.
    project.edit("\"/large\"", "\"/large\", \"*.none\"");
    assert_eq!(project.run(&[]), [""; 0]);
    project.ok(&["audit", "p.ron"]);
    project.edit("\"/large\", ", "");
    assert_eq!(project.run(&[]), ["a"]);
    assert_eq!(got(&project, "a/o"), "src/data/large\nsrc/large\nsrc/m.py\n");
    project.edit("\".DS_Store\"", "\"[\"");
    let refused = project.caco(&["run", "p.ron"]);
    assert!(refused.code == 1 && refused.err.contains("'[' is not a pattern"), "{refused:?}");
}

#[test]
fn large_inputs_are_mounted() {
    let project = Project::with(
        r#"(stages: {
            "make": command(shell: "head -c 17M /dev/zero > o", outputs: ["o"]),
            "a": command(shell: "stat -c %s big in small > o; grep -c /out/ /proc/self/mounts > mounts", outputs: ["o", "mounts"],
                inputs: {"big": Path("big"), "in": Stage("make/o"), "small": Path("small")}),
        })"#,
    );
    large(&project, "big");
    project.write("small", "1");
    project.run(&[]);
    assert_eq!(got(&project, "a/o"), format!("{0}\n{0}\n1\n", 17 << 20));
    assert_eq!(got(&project, "a/mounts"), "2\n");
}

#[test]
fn what_a_stage_made_read_only_is_published_and_cleared_away() {
    let project = Project::with(
        r#"(stages: {
            "a": command(shell: "mkdir -p d/e left; echo 1 > d/e/f; echo 2 > left/g; chmod -R a-w d left", outputs: ["d"]),
        })"#,
    );
    project.run(&[]);
    project.ok(&["cache", "verify"]);
    assert_eq!(fs::read_dir(project.path().join("cache/work")).unwrap().count(), 0);
}
