//! A temporary folder with a pipeline file, and the program run in it.

use serde_json::Value;
use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// The program under test.
pub fn caco_path() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_caco"))
}

/// A temporary folder.
pub struct Project {
    folder: tempfile::TempDir,
}

/// The output and exit code of a command.
#[derive(Debug)]
pub struct Printed {
    pub out: String,
    pub err: String,
    pub code: i32,
}

impl Project {
    /// An empty folder.
    pub fn new() -> Self {
        Project { folder: tempfile::tempdir().unwrap() }
    }

    /// Creates a folder with this text as p.ron.
    pub fn with(pipeline: &str) -> Self {
        let project = Self::new();
        project.write("p.ron", pipeline);
        project
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn write(&self, file: &str, text: &str) {
        let path = self.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path().join(file)).unwrap()
    }

    /// Replaces text in p.ron, which must contain it.
    pub fn edit(&self, from: &str, to: &str) {
        let text = self.read("p.ron");
        assert!(text.contains(from), "p.ron does not hold {from}");
        self.write("p.ron", &text.replace(from, to));
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.program(caco_path());
        command.args(args);
        command
    }

    /// A program in the project's folder, with nothing of the user's settings.
    pub fn program(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.path()).env("CI", "1").env("CACO_KEYS", self.path().join(".keys"));
        ["CACO_CACHE", "CACO_PIPELINE", "CACO_DATA", "RUST_LOG"].iter().for_each(|name| _ = command.env_remove(name));
        command
    }

    /// Makes the key that signs, so that no run says that it does.
    pub fn signer(&self) {
        if !self.path().join(".keys").exists() {
            self.ok(&["signer", "new"]);
        }
    }

    pub fn caco(&self, args: &[&str]) -> Printed {
        printed(self.command(args).output().unwrap())
    }

    /// Runs a command that must succeed.
    pub fn ok(&self, args: &[&str]) -> Printed {
        let printed = self.caco(args);
        assert_eq!(printed.code, 0, "caco {args:?}\n{}{}", printed.out, printed.err);
        printed
    }

    pub fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.ok(args).out).unwrap()
    }

    /// Whether no key of the store is locked: the whole lock file can be locked.
    pub fn holds_no_lock(&self) -> bool {
        use std::os::fd::AsRawFd;
        let file = fs::File::options().write(true).open(self.path().join("cache/lock")).unwrap();
        // SAFETY: plain data, for which zeros mean the whole file; the descriptor is open for the length of the call.
        unsafe {
            let mut all: libc::flock = std::mem::zeroed();
            all.l_type = libc::F_WRLCK as libc::c_short;
            libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &mut all) == 0
        }
    }

    /// The stages that a run of p.ron runs, sorted.
    pub fn run(&self, args: &[&str]) -> Vec<String> {
        let all = [&["run", "p.ron", "--json"], args].concat();
        ran(&self.json(&all))
    }
}

/// The stages that ran, sorted.
pub fn ran(outcome: &Value) -> Vec<String> {
    let mut names: Vec<String> =
        outcome["ran"].as_array().unwrap().iter().map(|r| r["stage"].as_str().unwrap().to_string()).collect();
    names.sort();
    names
}

/// Replaces keys and records, which change with the code: words of twelve or more hexadecimal digits, and the shard of
/// a store before them.
pub fn without_keys(text: &str) -> String {
    let mut words: Vec<&str> = text.split_inclusive(|c: char| !c.is_ascii_alphanumeric()).collect();
    let is_key = |word: &str| {
        let word = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        word.len() >= 12 && word.bytes().all(|b| b.is_ascii_hexdigit())
    };
    for i in 0..words.len() {
        if i > 0 && is_key(words[i]) && words[i - 1].len() == 3 && words[i - 1].ends_with('/') {
            words[i - 1] = "<shard>/";
        }
    }
    let shown = |word: &&str| {
        let end = word.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(word.len());
        if is_key(word) { format!("<key>{}", &word[end..]) } else { word.to_string() }
    };
    words.iter().map(shown).collect()
}

pub fn printed(output: Output) -> Printed {
    Printed {
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
        code: output.status.code().unwrap_or(-1),
    }
}
