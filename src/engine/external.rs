//! A file or folder outside the store, as a stage reads it.

use caco_pipeline::kind::Except;
use ignore::gitignore::Gitignore;
use std::path::{Path, PathBuf};

/// A file or folder outside the store, and what of the folder is left out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct External {
    /// Its absolute path.
    pub path: PathBuf,
    /// What is left out of the folder.
    pub except: Except,
}

impl External {
    /// A path of which nothing is left out.
    pub fn whole(path: &Path) -> External {
        External { path: path.into(), except: Except::default() }
    }

    /// Matches what is left out, by its path in the folder.
    pub(crate) fn left_out(&self) -> Gitignore {
        self.except.matcher().expect("patterns are checked when a pipeline is read")
    }
}
