//! Two runners over one store; they or their stages are killed at random moments. Nothing partly published is ever
//! visible, and at the end every result is that of an undisturbed run.
//!
//! `CACO_CRASH_KILLS=300` sets more kills than the few that a normal test run has time for.

use crate::{process::signal, project::Project};
use caco_measure::rng::Rng;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread::{self, sleep},
    time::Duration,
};

const LAYERS: usize = 10;
const WIDTH: usize = 20;
/// The default number of kills.
const KILLS: u32 = 40;

/// 200 stages, each of which writes a file and a folder and reads two stages of the layer above.
fn pipeline() -> String {
    let mut text = String::from("(stages: {\n");
    for layer in 0..LAYERS {
        for i in 0..WIDTH {
            let inputs = match layer {
                0 => String::new(),
                _ => format!(r#""a": Stage("{0}.{i}/out"), "b": Stage("{0}.{1}/d")"#, layer - 1, (i + 1) % WIDTH),
            };
            let read =
                if layer == 0 { format!("echo {i} > out") } else { "cat a b/one b/two > all; cksum all > out".into() };
            text += &format!(
                "\"{layer}.{i}\": command(shell: \"{read}; sleep 0.01; mkdir d; cp out d/one; echo {layer}.{i} > d/two\", \
                 inputs: {{{inputs}}}, outputs: [\"out\", \"d\"]),\n"
            );
        }
    }
    text + "})"
}

fn names(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
    found.sort();
    found
}

/// All visible records: the key, and the folder.
fn records(cache: &Path) -> Vec<(String, PathBuf)> {
    let mut found = vec![];
    for shard in names(&cache.join("results")) {
        for result in names(&shard) {
            let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
            let key = name(&shard) + &name(&result);
            let is_record =
                |path: &PathBuf| name(path).len() == 16 && name(path).bytes().all(|b| b.is_ascii_hexdigit());
            found.extend(names(&result).into_iter().filter(is_record).map(|record| (key.clone(), record)));
        }
    }
    found
}

/// Verifies every byte of a record against its digest, and returns the manifest. Panics if anything is missing or
/// damaged.
fn check(cache: &Path, key: &str, record: &Path) -> String {
    let text = |name: &str| {
        let path = record.join(name);
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("a visible record lacks {}: {e}", path.display()))
    };
    assert_eq!(blake3::hash(text("preimage.json").as_bytes()).to_string(), key, "{}", record.display());
    let _: serde_json::Value = serde_json::from_str(&text("record.json")).unwrap();
    let manifest = text("manifest.json");
    let parsed: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    assert_eq!(parsed["key"], key);
    let object = |digest: &str| {
        let bytes = fs::read(cache.join("objects").join(&digest[..2]).join(&digest[2..]))
            .unwrap_or_else(|e| panic!("{} is visible without object {digest}: {e}", record.display()));
        assert_eq!(blake3::hash(&bytes).to_string(), digest, "an object of {}", record.display());
        bytes
    };
    for output in parsed["outputs"].as_array().unwrap() {
        let bytes = object(output["blake3"].as_str().unwrap());
        if output["folder"] == true {
            let listing = String::from_utf8(bytes).unwrap();
            listing.lines().for_each(|line| _ = object(&line[..64]));
        }
    }
    manifest
}

/// Every key's manifest.
fn results(cache: &Path) -> BTreeMap<String, String> {
    records(cache).into_iter().map(|(key, record)| (key.clone(), check(cache, &key, &record))).collect()
}

/// The first processes of the stages that run in a store: group leaders whose working folder is below it.
fn stages_at_work(cache: &Path) -> Vec<i32> {
    let work = fs::canonicalize(cache.join("work")).unwrap_or_default();
    let mut found: Vec<i32> = names(Path::new("/proc"))
        .iter()
        .filter(|process| fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(&work)))
        .filter_map(|process| process.file_name()?.to_str()?.parse().ok())
        // SAFETY: only returns a number.
        .filter(|pid| unsafe { libc::getpgid(*pid) } == *pid)
        .collect();
    found.sort_unstable();
    found
}

fn kill(pid: u32) -> bool {
    signal(pid, libc::SIGKILL)
}

fn start(project: &Project) -> Child {
    let mut command = project.command(&["run", "p.ron", "-j", "2", "--keep-going"]);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Kills one process. Returns whether there was one to kill.
fn strike(project: &Project, runners: &mut [Child; 2], dice: &mut Rng) -> bool {
    sleep(Duration::from_millis(dice.below(120)));
    let victim = dice.below(4);
    if victim < 2 {
        let runner = &mut runners[victim as usize];
        let alive = runner.try_wait().unwrap().is_none();
        return alive && kill(runner.id());
    }
    let stages = stages_at_work(&project.path().join("cache"));
    !stages.is_empty() && kill(stages[dice.below(stages.len() as u64) as usize] as u32)
}

/// Disturbs one DAG until it is complete or the kills are used up, then lets it finish. Returns the number of kills.
fn round(project: &Project, kills: u32, dice: &mut Rng) -> u32 {
    let mut runners = [start(project), start(project)];
    let mut done = 0;
    while done < kills {
        done += u32::from(strike(project, &mut runners, dice));
        let mut complete = false;
        for runner in &mut runners {
            if let Some(status) = runner.try_wait().unwrap() {
                complete |= status.success();
                *runner = start(project);
            }
        }
        if complete {
            break;
        }
    }
    for mut runner in runners {
        // A stage that was just killed makes its run fail; the next one continues.
        while !runner.wait().unwrap().success() {
            runner = start(project);
        }
    }
    done
}

#[test]
fn kills_at_random_moments_lose_and_corrupt_nothing() {
    let wanted: u32 = std::env::var("CACO_CRASH_KILLS").map_or(KILLS, |n| n.parse().unwrap());
    let undisturbed = Project::with(&pipeline());
    undisturbed.ok(&["run", "p.ron"]);
    let expected = results(&undisturbed.path().join("cache"));
    assert_eq!(expected.len(), LAYERS * WIDTH);
    let (mut dice, mut kills, mut rounds) = (Rng::new(1, "crash", 0, 0), 0, 0);
    let (over, seen) = (AtomicBool::new(false), AtomicU64::new(0));
    while kills < wanted {
        let project = Project::with(&pipeline());
        let cache = project.path().join("cache");
        over.store(false, Ordering::SeqCst);
        thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    seen.fetch_add(results(&cache).len() as u64, Ordering::SeqCst);
                }
            });
            kills += round(&project, wanted - kills, &mut dice);
            rounds += 1;
            over.store(true, Ordering::SeqCst);
            watcher.join().unwrap();
        });
        assert_eq!(results(&cache), expected, "after {kills} kills");
        assert!(project.holds_no_lock(), "after {kills} kills");
        assert_eq!(stages_at_work(&cache), Vec::<i32>::new(), "after {kills} kills");
        let folders = names(&cache.join("results")).into_iter().flat_map(|shard| names(&shard));
        let is_half = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("partial-");
        let left: Vec<_> = folders.flat_map(|key| names(&key)).filter(is_half).collect();
        assert!(left.is_empty(), "{left:?}");
        assert!(project.run(&[]).is_empty());
    }
    println!("{kills} kills in {rounds} rounds; {} visible records read meanwhile", seen.load(Ordering::SeqCst));
}
