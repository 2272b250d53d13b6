//! What an input folder leaves out.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Patterns of files and folders to leave out, as in a `.gitignore` file of the folder (gitignore(5)): `*.pyc` at any
/// depth, `/data` only at the top, `logs/` only folders, `!keep.pyc` not after all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Except(pub Vec<String>);
