//! The state of the working tree that contains a pipeline: its git commit, and whether anything differs from it.

use std::{path::Path, process::Command};

/// A working tree's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The commit, hexadecimal.
    pub commit: String,
    /// Whether a tracked file differs from it, or the pipeline file is not tracked.
    pub dirty: bool,
}

impl Source {
    /// The state of the tree that contains this file. `None` if there is no tree, or no git.
    pub fn of(pipeline: &Path) -> Option<Source> {
        let pipeline = std::path::absolute(pipeline).ok()?;
        let git = |args: &[&str]| {
            let mut git = Command::new("git");
            git.arg("-C").arg(pipeline.parent()?).args(args).env("GIT_OPTIONAL_LOCKS", "0");
            let output = git.output().ok()?;
            output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let status = git(&["status", "--porcelain=v2", "--branch", "--untracked-files=no"])?;
        let tracked = || {
            let name = pipeline.file_name()?.to_str()?;
            git(&["ls-files", "--error-unmatch", "--", name])
        };
        parse(&status).map(|source| Source { dirty: source.dirty || tracked().is_none(), ..source })
    }
}

/// Parses the output of `git status --porcelain=v2 --branch`.
fn parse(status: &str) -> Option<Source> {
    let commit = status.lines().find_map(|line| line.strip_prefix("# branch.oid "))?;
    let hexadecimal = commit.len() >= 40 && commit.bytes().all(|b| b.is_ascii_hexdigit());
    let dirty = status.lines().any(|line| !line.starts_with('#'));
    hexadecimal.then(|| Source { commit: commit.into(), dirty })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let clean = format!("# branch.oid {commit}\n# branch.head main\n");
        assert_eq!(parse(&clean), Some(Source { commit: commit.into(), dirty: false }));
        let changed = format!("{clean}1 .M N... 100644 100644 100644 aa bb src/main.rs\n");
        assert!(parse(&changed).unwrap().dirty);
        assert_eq!(parse("# branch.oid (initial)\n"), None, "nothing was committed yet");
    }
}
