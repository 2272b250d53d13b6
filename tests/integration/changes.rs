//! Inputs that change at random moments of random pipelines, and stages that write where they must not. Whatever happens, a
//! published result is what its key asks for, and no object of the store changes. What a key asks for is computed here from
//! the listing that its preimage names, by other code than the engine's.
//!
//! `CACO_CHANGES=10000` makes that many changes instead of those for every day.

use crate::{
    kernel::{Lack, without},
    project::Project,
};
use serde_json::Value;
use std::{
    collections::HashMap,
    fs::{self, File, Permissions},
    io::Write as _,
    os::unix::{
        fs::{PermissionsExt, chown, symlink},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{scope, sleep},
    time::Duration,
};

/// Nobody's number, for runs as an ordinary user.
const NOBODY: u32 = 65534;
/// More than this is mounted instead of copied.
const LARGE: u64 = 16 << 20;

/// SplitMix64: a failure can be repeated from its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % end
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

/// SHA-256 of every content that a file has had, by BLAKE3, both as the programs of those names print them.
#[derive(Default)]
struct Contents(Mutex<HashMap<String, String>>);

impl Contents {
    /// Notes a content before a file has it.
    fn note(&self, bytes: &[u8]) {
        let blake3 = blake3::hash(bytes).to_string();
        self.0.lock().unwrap().entry(blake3).or_insert_with(|| sha256(bytes));
    }
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A project whose inputs are the file `f` and the folder `d`.
struct World<'c> {
    project: Project,
    contents: &'c Contents,
    lacks: &'static [Lack],
    user: Option<u32>,
}

impl World<'_> {
    fn path(&self, file: &str) -> PathBuf {
        self.project.path().join(file)
    }

    /// Writes a file in place.
    fn write(&self, file: &str, bytes: &[u8]) {
        self.contents.note(b"");
        self.contents.note(bytes);
        let _ = fs::create_dir_all(self.path(file).parent().unwrap());
        let _ = fs::write(self.path(file), bytes);
    }

    /// Makes one change. Some fail, since an earlier one removed or replaced what they change.
    fn change(&self, random: &mut Random) {
        let file = random.of(&["f", "f", "d/a", "d/a", "d/sub/b", "d/sub/c", "d/big"]);
        let path = self.path(file);
        let small = random.below(4).to_string();
        match random.below(12) {
            0 | 1 => self.write(file, small.as_bytes()),
            2 => {
                // Replaced, as editors do.
                self.write("aside", small.as_bytes());
                let _ = fs::rename(self.path("aside"), path);
            }
            3 => {
                let before = fs::read(&path).unwrap_or_default();
                self.contents.note(&[&before[..], b"+"].concat());
                let _ = File::options().append(true).open(path).and_then(|mut file| file.write_all(b"+"));
            }
            4 => {
                let length = random.of(&[0, 1, LARGE + 1]);
                let mut bytes = fs::read(&path).unwrap_or_default();
                bytes.resize(length as usize, 0);
                self.contents.note(&bytes);
                let _ = File::options().write(true).open(path).and_then(|file| file.set_len(length));
            }
            5 => {
                // Other bytes under the time of the former ones.
                let time = fs::metadata(&path).and_then(|meta| meta.modified());
                self.write(file, small.as_bytes());
                let _ = time.and_then(|time| File::options().write(true).open(path)?.set_modified(time));
            }
            6 => _ = fs::set_permissions(path, Permissions::from_mode(random.of(&[0o644, 0o755]))),
            7 => _ = fs::remove_file(path).or_else(|_| fs::remove_dir_all(self.path("d/sub"))),
            8 => _ = fs::create_dir_all(self.path(random.of(&["d/none", "d/sub/none", "d/sub"]))),
            9 => _ = fs::remove_dir(self.path(random.of(&["d/none", "d/sub/none", "d/sub"]))),
            10 => _ = symlink(random.of(&["../f", "../outside", "a"]), self.path(random.of(&["d/x", "d/a"]))),
            _ => _ = fs::remove_file(self.path("d/x")),
        }
    }

    /// A pipeline of random stages. Each describes what it reads in `o` and copies its first input to `p`; then it may do
    /// what no stage should.
    fn pipeline(&self, random: &mut Random) -> String {
        const DESCRIBE: &str = "for i in i?; do find $i -type f | LC_ALL=C sort | while read -r f; do x=-; \
            if [ -x $f ]; then x=x; fi; echo $f $x $(sha256sum < $f); done; \
            find $i -mindepth 1 -type d -empty | LC_ALL=C sort; done > o; cp -r i0 p";
        const THEN: [&str; 8] = [
            "true",
            "sleep 0.05",
            "chmod -R u+w i0 || true; echo X >> i0 || true; echo X >> i0/a || true; rm -rf i0/sub || true",
            "chmod -R a-w p",
            "(sleep 0.05; echo LATE >> o) > /dev/null 2>&1 &",
            "(exec 9>> o; setsid sh -c 'sleep 0.05; echo LATE >&9; sleep 0.2; echo LATE >&9' > /dev/null 2>&1 &)",
            "ln o q; (setsid sh -c 'sleep 0.05; echo LATE >> q' > /dev/null 2>&1 &)",
            // Nothing keeps it from this where a stage is not confined and the machine offers no mounts.
            "(for f in ../../../objects/*/*; do chmod u+w $f; echo X >> $f; done) 2> /dev/null || true",
        ];
        let then = if self.lacks.contains(&Lack::Mounts) { &THEN[..7] } else { &THEN[..] };
        let stage = |i: u64, random: &mut Random| {
            let inputs = (0..1 + random.below(3)).map(|slot| {
                let of = random.below(3 + i);
                let source = match of {
                    0 => r#"Path("f")"#.to_string(),
                    1 => r#"Path("d")"#.to_string(),
                    2 => r#"Folder(path: "d", except: ["/sub", "b"])"#.to_string(),
                    of => format!("Stage(\"s{}/{}\")", of - 3, random.of(&["o", "p"])),
                };
                format!("\"i{slot}\": {source}")
            });
            let inputs: Vec<String> = inputs.collect();
            let (then, isolation) = (random.of(then), random.of(&["Landlock", "Landlock", "None"]));
            format!(
                "\"s{i}\": command(shell: \"{DESCRIBE}; {then}\", inputs: {{{}}}, outputs: [\"o\", \"p\"], isolation: {isolation}),\n",
                inputs.join(", ")
            )
        };
        let stages: String = (0..2 + random.below(4)).map(|i| stage(i, random)).collect();
        format!("(stages: {{\n{stages}}})")
    }

    /// Runs the pipeline while its inputs change. Stages may fail. Returns the number of changes.
    fn run(&self, random: &mut Random) -> u64 {
        let mut command = self.project.command(&["run", "p.ron", "-k", "-j", "3"]);
        without(&mut command, self.lacks);
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        let ended = AtomicBool::new(false);
        let mut changes = 0;
        scope(|threads| {
            threads.spawn(|| {
                command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
                ended.store(true, Ordering::Relaxed);
            });
            while !ended.load(Ordering::Relaxed) {
                self.change(random);
                changes += 1;
                sleep(Duration::from_micros(random.of(&[0, 500, 5_000, 20_000, 50_000])));
            }
        });
        changes
    }

    /// The object of this digest.
    fn object(&self, digest: &str) -> PathBuf {
        self.path(&format!("cache/objects/{}/{}", &digest[..2], &digest[2..]))
    }

    /// SHA-256 of the content of this digest.
    fn sum(&self, digest: &str) -> String {
        let known = self.contents.0.lock().unwrap().get(digest).cloned();
        known.unwrap_or_else(|| sha256(&fs::read(self.object(digest)).unwrap()))
    }

    /// What a stage says of an input of this digest.
    fn description(&self, slot: &str, digest: &str, executable: bool) -> String {
        let kept = [self.path(&format!("cache/listings/{digest}")), self.object(digest)];
        let listing = kept.iter().find_map(|path| fs::read_to_string(path).ok()).filter(|text| is_listing(text));
        let known = self.contents.0.lock().unwrap().contains_key(digest);
        let line = |path: &str, executable: bool, digest: &str| {
            format!("{path} {} {} -\n", if executable { "x" } else { "-" }, self.sum(digest))
        };
        let Some(listing) = listing.filter(|_| !known) else { return line(slot, executable, digest) };
        let (mut files, mut empty) = (String::new(), String::new());
        for (digest, size, path) in listing.lines().map(parts) {
            match path.strip_suffix('/') {
                // The input itself is not below itself.
                Some("") => {}
                Some(folder) => empty += &format!("{slot}/{folder}\n"),
                None => files += &line(&format!("{slot}/{path}"), size.ends_with('x'), digest),
            }
        }
        files + &empty
    }

    /// Checks every record and object of the store.
    fn check(&self, hint: &str) -> u64 {
        let mut checked = 0;
        for shard in folders(&self.path("cache/objects")) {
            for object in folders(&shard) {
                let name = format!("{}{}", last(&shard), last(&object));
                assert_eq!(blake3::hash(&fs::read(&object).unwrap()).to_string(), name, "{hint}");
            }
        }
        let records = folders(&self.path("cache/results")).into_iter().flat_map(|shard| folders(&shard));
        for record in records.flat_map(|key| folders(&key)).filter(|path| path.join("manifest.json").exists()) {
            let json = |name: &str| -> Value { serde_json::from_slice(&fs::read(record.join(name)).unwrap()).unwrap() };
            let (preimage, manifest) = (json("preimage.json"), json("manifest.json"));
            let runs =
                |slot: &str| preimage["executable"].as_array().is_some_and(|slots| slots.iter().any(|s| s == slot));
            let inputs = preimage["inputs"].as_object().unwrap();
            let expected: String = inputs
                .iter()
                .map(|(slot, digest)| self.description(slot, digest.as_str().unwrap(), runs(slot)))
                .collect();
            let output = |name: &str| {
                manifest["outputs"].as_array().unwrap().iter().find(|o| o["name"] == name).unwrap().clone()
            };
            let described = fs::read_to_string(self.object(output("o")["blake3"].as_str().unwrap())).unwrap();
            assert_eq!(described, expected, "{hint} {}", record.display());
            assert_eq!(output("p")["blake3"], inputs["i0"], "{hint} {}", record.display());
            assert_eq!(output("p")["executable"] == true, runs("i0"), "{hint} {}", record.display());
            checked += 1;
        }
        self.project.ok(&["cache", "verify"]);
        checked
    }
}

fn parts(line: &str) -> (&str, &str, &str) {
    let mut parts = line.splitn(3, ' ');
    (parts.next().unwrap(), parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
}

fn is_listing(text: &str) -> bool {
    !text.is_empty() && text.lines().all(|line| parts(line).0.len() == 64 && !parts(line).2.is_empty())
}

fn folders(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
}

fn last(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

/// Whether the program under test can be run as another user.
fn can_be_another() -> bool {
    let project = Project::new();
    chown(project.path(), Some(NOBODY), Some(NOBODY)).is_ok()
        && project.command(&["--version"]).uid(NOBODY).output().is_ok_and(|output| output.status.success())
}

#[test]
fn what_is_published_is_what_its_key_asks_for() {
    const KERNELS: [&[Lack]; 4] = [&[], &[Lack::Landlock], &[Lack::Mounts], &[Lack::Landlock, Lack::Mounts]];
    let wanted: u64 = std::env::var("CACO_CHANGES").map_or(300, |number| number.parse().unwrap());
    let users: &[Option<u32>] = if can_be_another() { &[None, Some(NOBODY)] } else { &[None] };
    let contents = Contents::default();
    let (mut changes, mut records, mut seed) = (0, 0, 0);
    while changes < wanted || seed < 8 {
        let mut random = Random(seed);
        let (lacks, user) = (KERNELS[seed as usize % 4], users[seed as usize / 4 % users.len()]);
        let world = World { project: Project::new(), contents: &contents, lacks, user };
        let hint = format!("seed {seed}, without {lacks:?}, user {user:?}");
        world.write("f", b"0");
        world.write("d/a", b"0");
        world.write("d/sub/b", b"1");
        world.write("outside", b"2");
        if let Some(user) = user {
            ["", "d", "d/sub"].iter().for_each(|path| chown(world.path(path), Some(user), Some(user)).unwrap());
        }
        for _ in 0..3 {
            world.project.write("p.ron", &world.pipeline(&mut random));
            changes += world.run(&mut random);
        }
        records += world.check(&hint);
        seed += 1;
    }
    assert!(records >= seed, "only {records} results were published in {seed} projects");
    eprintln!("{changes} changes, {seed} projects, {records} results");
}
