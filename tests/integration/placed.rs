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
        caco(&project, lacks, &["run", "p.ron", "--force", "a"]);
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
