//! Several processes: copies of this program, each of which runs one test as a member of a team.

use crate::parity;
use caco_learn::{
    bridge::team::{self, Place},
    device,
    train::collective,
};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};
use tch::Device;

/// Environment variable of a member: its number, how many there are, and the folder where they meet.
const MEMBER: &str = "CACO_TEST_MEMBER";

/// Runs `act` in so many processes, given the number of each. `test` is the name of the calling test.
fn in_processes(test: &str, size: usize, act: impl FnOnce(usize, &dyn Fn(&str) -> anyhow::Result<()>)) {
    if let Ok(member) = env::var(MEMBER) {
        let words: Vec<&str> = member.split(' ').collect();
        let (rank, folder) = (words[0].parse().unwrap(), PathBuf::from(words[2]));
        // The test calls this for every size.
        if words[1] == size.to_string() {
            act(rank, &|build| join(rank, size, &folder, build));
            std::process::exit(0);
        }
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let start = |rank: usize| {
        let member = format!("{rank} {size} {}", folder.path().display());
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", test, "--nocapture"]).env(MEMBER, member).spawn().unwrap()
    };
    let mut members: Vec<_> = (0..size).map(start).collect();
    for (rank, member) in members.iter_mut().enumerate() {
        assert!(member.wait().unwrap().success(), "process {rank} of {size} failed");
    }
}

/// Joins the others, as a program of this build.
fn join(rank: usize, size: usize, folder: &Path, build: &str) -> anyhow::Result<()> {
    let place = folder.join("port");
    if rank == 0 {
        let aside = folder.join("partial");
        fs::write(&aside, team::open(size)?.to_string())?;
        fs::rename(aside, &place)?;
    }
    let begun = Instant::now();
    while !place.exists() {
        assert!(begun.elapsed() < Duration::from_secs(300), "the first process opens no port");
        sleep(Duration::from_millis(10));
    }
    let port = fs::read_to_string(place)?.parse()?;
    team::join(&Place { port, nonce: "word", rank, size, build }, Device::Cpu)
}

#[test]
fn every_case_agrees_to_a_billionth_in_several_processes() {
    for size in [2, 4] {
        in_processes("team::every_case_agrees_to_a_billionth_in_several_processes", size, |_, join| {
            let device = device::for_tests(1).unwrap();
            join("this").unwrap();
            let shards: Vec<i64> = [2, 4, 8].into_iter().filter(|shards| *shards >= size as i64).collect();
            let (replayed, in_eight) = parity::every_case(&shards, device);
            assert!(replayed >= 30 && in_eight >= 2, "{replayed} cases, {in_eight} in eight shards");
        });
    }
}

#[test]
fn another_build_is_refused() {
    in_processes("team::another_build_is_refused", 2, |rank, join| {
        let error = join(["one", "another"][rank]).unwrap_err().to_string();
        assert!(error.contains("is another build of this program"), "{error}");
    });
}

#[test]
fn a_process_whose_tensors_differ_is_named() {
    in_processes("team::a_process_whose_tensors_differ_is_named", 4, |rank, join| {
        device::for_tests(1).unwrap();
        join("this").unwrap();
        assert_eq!(collective::here().differing(7).unwrap(), None);
        assert_eq!(collective::here().differing([7, 7, 8, 7][rank]).unwrap(), Some(2));
    });
}
