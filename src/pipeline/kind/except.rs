//! What an input folder leaves out, in the patterns of `.gitignore`.

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Patterns of files and folders to leave out, as in a `.gitignore` file of the folder (gitignore(5)): `*.pyc` at any
/// depth, `/data` only at the top, `logs/` only folders, `!keep.pyc` not after all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Except(Vec<String>);

impl Except {
    /// Whether nothing is left out.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Matches paths relative to the folder. What is below a folder that matches must not be visited.
    ///
    /// # Errors
    /// The first pattern that is not valid, and why.
    pub fn matcher(&self) -> Result<Gitignore, String> {
        let mut builder = GitignoreBuilder::new("");
        builder.allow_unclosed_class(false);
        for pattern in &self.0 {
            builder
                .add_line(None, pattern)
                .map_err(|error| format!("'{pattern}' is not a pattern of .gitignore: {error}"))?;
        }
        builder.build().map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_gitignore() {
        let except = Except(["**/__pycache__", ".DS_Store", "/data", "*.log", "!keep.log"].map(String::from).into());
        let matcher = except.matcher().unwrap();
        let left_out = |path: &str, folder: bool| matcher.matched(path, folder).is_ignore();
        for path in [".DS_Store", "a/b/.DS_Store", "a/__pycache__", "__pycache__", "data", "x.log", "a/x.log"] {
            assert!(left_out(path, false), "{path}");
        }
        for path in ["a/data", "keep.log", "a/keep.log", "x.log.txt", "DS_Store"] {
            assert!(!left_out(path, false), "{path}");
        }
        assert!(Except(vec!["logs/".into()]).matcher().unwrap().matched("logs", true).is_ignore());
        let error = Except(vec!["a[".into()]).matcher().unwrap_err();
        assert!(error.contains("'a['"), "{error}");
    }
}
