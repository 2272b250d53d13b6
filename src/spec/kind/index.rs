use super::*;

/// Lists the images of a folder in the ImageFolder layout (`<class>/<image>`): path, label, size in pixels, byte length
/// and digest of each, sorted by path. Classes are numbered in the byte order of their names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Index {
    /// The folder.
    pub root: Source,
    /// What to do about a file that cannot be decoded.
    #[serde(default)]
    pub unreadable: Unreadable,
}

/// What an index does about files that cannot be decoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Unreadable {
    /// The stage fails and names them all.
    #[default]
    Fail,
    /// They are listed in the index and left out of every use.
    LeaveOut,
}

impl Kind for Index {
    const NAME: &'static str = "index";
    const VERSION: u32 = 1;
    const OUTPUTS: &'static [Output] = &[output("index", "index.jsonl")];
    const SOURCES: &'static [&'static str] = &["root"];

    fn inputs(&self) -> Vec<Input> {
        vec![Input { slot: "root".into(), source: self.root.clone(), role: Role::Content }]
    }

    fn check(&self) -> Result<(), Complaint> {
        Ok(())
    }
}
