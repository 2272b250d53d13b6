//! A file or folder outside the store, as a stage reads it.

use caco_pipeline::kind::Except;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use std::path::{Path, PathBuf};

/// A file or folder outside the store, and what of the folder is left out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct External {
    /// Its absolute path.
    pub path: PathBuf,
    /// What is left out of the folder. [`matcher`] accepts it.
    pub except: Except,
    /// Whether executable bits count. They do for commands; a stage that reads data sees none, and a file system that knows
    /// no modes must not change its key.
    pub modes: bool,
}

impl External {
    /// A path of which nothing is left out.
    pub fn whole(path: &Path) -> External {
        External { path: path.into(), except: Except::default(), modes: true }
    }

    /// Matches what is left out, by its path in the folder. What is below a folder that matches must not be visited.
    pub fn left_out(&self) -> Gitignore {
        matcher(&self.except).expect("patterns are checked when the graph is made")
    }
}

/// Matches paths relative to a folder.
///
/// # Errors
/// The first pattern that is not valid, and why.
pub fn matcher(except: &Except) -> Result<Gitignore, (String, ignore::Error)> {
    let mut builder = GitignoreBuilder::new("");
    builder.allow_unclosed_class(false);
    for pattern in &except.0 {
        builder.add_line(None, pattern).map_err(|error| (pattern.clone(), error))?;
    }
    builder.build().map_err(|error| (except.0.join("\n"), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_gitignore() {
        let except = Except(["**/__pycache__", ".DS_Store", "/data", "*.log", "!keep.log"].map(String::from).into());
        let matcher = |except: &Except| super::matcher(except);
        let known = matcher(&except).unwrap();
        let left_out = |path: &str, folder: bool| known.matched(path, folder).is_ignore();
        for path in [".DS_Store", "a/b/.DS_Store", "a/__pycache__", "__pycache__", "data", "x.log", "a/x.log"] {
            assert!(left_out(path, false), "{path}");
        }
        for path in ["a/data", "keep.log", "a/keep.log", "x.log.txt", "DS_Store"] {
            assert!(!left_out(path, false), "{path}");
        }
        assert!(matcher(&Except(vec!["logs/".into()])).unwrap().matched("logs", true).is_ignore());
        assert_eq!(matcher(&Except(vec!["a".into(), "a[".into()])).unwrap_err().0, "a[");
    }
}
