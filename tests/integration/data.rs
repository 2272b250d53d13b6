//! `caco data`: the catalogue, and fetching a data set.

use crate::project::{Printed, Project};
use std::fs;

/// A project with a catalogue of one data set, `toys`, and its archive in `mirror/`.
fn with_toys() -> Project {
    let project = Project::new();
    let mut tar = tar::Builder::new(vec![]);
    for (name, content) in [("toys/train/a/1.png", "one"), ("toys/val/a/2.png", "two")] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, name, content.as_bytes()).unwrap();
    }
    fs::create_dir(project.path().join("mirror")).unwrap();
    let archive = project.path().join("mirror/toys.tar");
    fs::write(&archive, tar.into_inner().unwrap()).unwrap();
    let digests = caco_data_sets::digest::of(&archive, &mut |_| ()).unwrap();
    project.write("sets.ron", &catalogue(&digests.md5));
    project
}

/// Nothing listens on port 1 of this machine, which simulates a missing network.
fn catalogue(md5: &str) -> String {
    format!(
        r#"#![enable(implicit_some)]
        [(
            name: "toys", title: "Toys", source: "http://127.0.0.1:1/", licence: "CC0", format: ImageFolder, root: "toys",
            images: {{Train: 1, Val: 1}}, classes: 2,
            archives: [(file: "toys.tar", urls: ["http://127.0.0.1:1/toys.tar"], bytes: 3072, md5: "{md5}", unpack: Tar)],
        )]"#
    )
}

fn data(project: &Project, args: &[&str]) -> Printed {
    let mut command = project.command(&[&["data"], args].concat());
    for proxy in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        command.env_remove(proxy);
    }
    crate::project::printed(command.output().unwrap())
}

fn fetch(project: &Project, args: &[&str]) -> Printed {
    data(project, &[&["fetch", "toys", "--catalogue", "sets.ron"], args].concat())
}

const LINES: &str = "\"train\": index(root: Path(\"data/toys/toys/train\")),\n\
                     \"val\": index(root: Path(\"data/toys/toys/val\")),\n";

#[test]
fn all_data_sets_are_listed() {
    let project = Project::new();
    insta::assert_snapshot!(project.ok(&["data", "list"]).out);
    let all = project.json(&["data", "list", "--json"]);
    let food = &all.as_array().unwrap()[0];
    assert_eq!((food["name"].as_str(), food["state"].as_str()), (Some("food101"), Some("absent")));
    assert_eq!((food["folder"].as_str(), food["images"]["Train"].as_u64()), (Some("data/food101"), Some(75750)));
    assert_eq!(food["archives"][0]["md5"], "85eeb15f3717b99a5da872d97d918f87");
}

#[test]
fn a_set_is_fetched_from_a_folder() {
    let project = with_toys();
    let first = fetch(&project, &["--from", "mirror"]);
    assert_eq!((first.code, first.out.as_str()), (0, LINES), "{}", first.err);
    assert!(first.err.contains("Toys; licence: CC0") && first.err.contains("toys is in data/toys"), "{}", first.err);
    assert_eq!(project.read("data/toys/toys/train/a/1.png"), "one");
    assert!(project.path().join("data/toys/archives/toys.tar").exists());
    // The second time there is nothing to do or download.
    let again = fetch(&project, &["--remove-archives"]);
    assert_eq!((again.code, again.out.as_str()), (0, LINES), "{}", again.err);
    assert!(again.err.contains("toys was already in data/toys"), "{}", again.err);
    assert!(!project.path().join("data/toys/archives/toys.tar").exists());
    let listed = data(&project, &["list", "--catalogue", "sets.ron"]).out;
    assert!(listed.lines().nth(1).is_some_and(|line| line.contains("toys") && line.contains(" yes ")), "{listed}");
}

#[test]
fn a_set_is_stored_in_the_given_folder() {
    let project = with_toys();
    let to = fetch(&project, &["--from", "mirror", "--to", "elsewhere"]);
    assert!(to.code == 0 && to.out.contains("Path(\"elsewhere/toys/train\")"), "{}{}", to.out, to.err);
    let mut command = project.command(&["data", "fetch", "toys", "--catalogue", "sets.ron", "--from", "mirror"]);
    let parent = crate::project::printed(command.env("CACO_DATA", "parent").output().unwrap());
    assert!(parent.out.contains("Path(\"parent/toys/toys/train\")"), "{}{}", parent.out, parent.err);
    assert_eq!(project.read("parent/toys/toys/val/a/2.png"), "two");
}

#[test]
fn a_set_is_fetched_into_the_project_from_its_folders() {
    let project = with_toys();
    project.write("pipelines/p.ron", "(stages: {})");
    project.write("sub/deep/f", "");
    let fetch = |args: &[&str]| {
        let mut command =
            project.command(&[&["data", "fetch", "toys", "--catalogue", "../../sets.ron"], args].concat());
        crate::project::printed(command.current_dir(project.path().join("sub/deep")).output().unwrap())
    };
    let fetched = fetch(&["--from", "../../mirror"]);
    assert_eq!((fetched.code, fetched.out.as_str()), (0, LINES), "{}", fetched.err);
    assert!(fetched.err.contains("toys is in ../../data/toys"), "{}", fetched.err);
    // The lines for a pipeline name a folder as pipelines do, wherever it is given from.
    let elsewhere = fetch(&["--from", "../../mirror", "--to", "../mine"]);
    assert!(elsewhere.out.contains("Path(\"sub/mine/toys/train\")"), "{}{}", elsewhere.out, elsewhere.err);
}

#[test]
fn without_network_it_says_what_to_do_by_hand() {
    let project = with_toys();
    let run = fetch(&project, &[]);
    assert_eq!((run.code, run.out.as_str()), (1, ""), "{}", run.err);
    assert!(run.err.contains("error: no network: http://127.0.0.1:1/toys.tar: "), "{}", run.err);
    let step = "1. download http://127.0.0.1:1/toys.tar (3072 bytes, MD5 ";
    assert!(run.err.contains(step) && run.err.contains("to data/toys/archives/toys.tar"), "{}", run.err);
    assert!(run.err.contains("2. run the same command again"), "{}", run.err);
    // Following these steps works.
    fs::copy(project.path().join("mirror/toys.tar"), project.path().join("data/toys/archives/toys.tar")).unwrap();
    let done = fetch(&project, &[]);
    assert_eq!((done.code, done.out.as_str()), (0, LINES), "{}", done.err);
}

#[test]
fn another_archive_than_the_known_one_is_refused() {
    let project = with_toys();
    project.write("sets.ron", &catalogue("00000000000000000000000000000000"));
    let run = fetch(&project, &["--from", "mirror"]);
    assert_eq!((run.code, run.out.as_str()), (1, ""), "{}", run.err);
    assert!(run.err.contains("00000000000000000000000000000000 was expected"), "{}", run.err);
    assert!(project.path().join("data/toys/archives/toys.tar.wrong").exists());
    assert!(!project.path().join("data/toys/toys").exists());
    // The given file is unchanged.
    assert!(project.path().join("mirror/toys.tar").exists());
}

#[test]
fn a_set_that_only_a_person_can_get_says_how() {
    let project = Project::new();
    let run = data(&project, &["fetch", "imagenet"]);
    assert_eq!(run.code, 1);
    assert!(run.err.contains("'imagenet' cannot be downloaded by a program"), "{}", run.err);
    let parts =
        ["1. register at https://image-net.org/", "1d675b47d978889d74fa0da5fadfb00e", "6. run the same command"];
    assert!(parts.iter().all(|part| run.err.contains(part)), "{}", run.err);
}

#[test]
fn the_nearest_name_is_suggested() {
    let run = Project::new().caco(&["data", "fetch", "food-101"]);
    assert_eq!(run.code, 1);
    let all = "did you mean 'food101'? known here: food101, cifar10,";
    assert!(run.err.contains("no data set is called 'food-101'") && run.err.contains(all), "{}", run.err);
}
