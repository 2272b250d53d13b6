//! Stage kinds: structs of parameters that declare what they read and write. The engine itself only defines `command`;
//! its caller supplies all others in a [`Registry`].

mod command;
mod except;
mod left_out;
mod path;
mod registry;
pub mod tagged;
mod tolerance;

pub use command::{Command, Delivery, Isolation};
pub use except::Except;
pub use path::normal;
pub use registry::{Entry, Read, ReadError, Registry, options};
pub use tolerance::Tolerance;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::borrow::Cow;

/// The prefix of a program's slot, followed by its name.
pub const TOOL_SLOT: &str = "tool ";

/// Where a stage reads from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Source {
    /// An output of another stage: `Stage("images/train")` is output `train` of stage `images`. Without an output, it
    /// is the stage's first one.
    Stage(String),
    /// A file or folder outside the store. `${VAR}` and `${VAR:-default}` are replaced from the environment. A relative
    /// path starts at the folder of the project.
    Path(String),
    /// A folder outside the store without some of its files: `Folder(path: "src", except: ["__pycache__", ".DS_Store"])`.
    /// What is left out is neither read nor part of the key. Only for commands.
    Folder {
        /// The folder, as in `Path`.
        path: String,
        /// What is left out.
        except: Except,
    },
}

/// One input of a stage.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// The name under which the stage finds it, and its field in the pipeline file.
    pub slot: String,
    /// Where it comes from.
    pub source: Source,
    /// How it affects the stage's key.
    pub role: Role,
}

/// How an input affects the stage's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Its content digest is part of the key.
    Content,
    /// Like `Content`, and the source must be an output of this name. Any output of a command is accepted.
    Output(&'static str),
    /// The source is a stage, and the input is what that stage reads in this slot, or its output `images` if it writes
    /// the images that it lists. It is located but not hashed: another input, the stage's own output, already contains
    /// a digest of all relevant content.
    Located(&'static str),
    /// The source is a program, whose bytes and version are part of the key. The stage finds it on PATH itself.
    Tool,
}

impl Input {
    /// A hashed input from another stage.
    pub fn stage(slot: &str, stage: &str) -> Self {
        Input { slot: slot.into(), source: Source::Stage(stage.into()), role: Role::Content }
    }

    /// A hashed input from an output of this name of another stage.
    pub fn output(slot: &str, stage: &str, name: &'static str) -> Self {
        Input { role: Role::Output(name), ..Self::stage(slot, stage) }
    }

    /// An index, and in slot `<slot>.images` the folder of images that it lists.
    pub fn index(slot: &str, stage: &str) -> [Self; 2] {
        let images =
            Input { slot: format!("{slot}.images"), source: Source::Stage(stage.into()), role: Role::Located("root") };
        [Self::output(slot, stage, "index"), images]
    }
}

/// One declared output of a stage: its name in references, and its path below the stage's output folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// The name in `Stage("stage/name")` and `caco get stage/name`.
    pub name: Cow<'static, str>,
    /// The file or folder written.
    pub path: Cow<'static, str>,
}

/// Shorthand for an [`Output`].
pub const fn output(name: &'static str, path: &'static str) -> Output {
    Output { name: Cow::Borrowed(name), path: Cow::Borrowed(path) }
}

/// A value that is out of range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// Dotted path of the field.
    pub field: String,
    /// What is wrong, and what is allowed.
    pub message: String,
}

/// Returns a complaint about `field` unless `ok`.
pub fn ensure(ok: bool, field: &str, message: impl Into<String>) -> Result<(), Complaint> {
    if ok { Ok(()) } else { Err(Complaint { field: field.into(), message: message.into() }) }
}

/// A value that is allowed, but that will hardly give what is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caution {
    /// Dotted path of the field.
    pub field: String,
    /// Why it is one.
    pub message: String,
    /// A better value.
    pub help: String,
}

/// Looks up the parameters of the stage that an input reads from, by slot. `None` for a source outside the store.
pub type Upstream<'a> = dyn Fn(&str) -> Option<serde_json::Value> + 'a;

/// Finds what to warn of in a stage's parameters.
pub type Warn<K> = fn(&K, &Upstream) -> Vec<Caution>;

/// The output that a stage had when it was published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The name of the output.
    pub output: &'static str,
    /// Its BLAKE3 digest.
    pub blake3: [u8; 32],
    /// A file that holds it, as the pipeline file names it.
    pub table: Option<String>,
}

/// A stage kind: the parameters of one kind of stage.
pub trait Kind: Serialize + DeserializeOwned + JsonSchema {
    /// The name in pipeline files.
    const NAME: &'static str;
    /// Must be raised when the same parameters and inputs give other results than before.
    const VERSION: u32;
    /// The stage's outputs besides its metrics. A reference without an output means the first.
    const OUTPUTS: &'static [Output];
    /// Parameters added since `VERSION` was last raised, each with the JSON of its default, which is today's behaviour.
    /// With that value a parameter is left out of the preimage, so that adding it changed no key. A dotted path names it,
    /// through lists and variants too: `views.MultiCrop.count`, `rows.note`. They are left out in this order.
    const DEFAULT_NOT_HASHED: &'static [(&'static str, &'static str)] = &[];
    /// The fields (dotted paths) that name sources: the content that is read is part of the key, the name is not.
    const SOURCES: &'static [&'static str] = &[];
    /// The fields (dotted paths) that affect how a result is computed but none of its bits. They are not part of the key, and a
    /// stopped stage can resume with another value.
    const NOT_HASHED: &'static [&'static str] = &[];
    /// How much results of different determinism classes may differ.
    const TOLERANCE: Tolerance;
    /// Finds what to warn of. Never a reason not to run: see [`Kind::check`] for that.
    const WARN: Option<Warn<Self>> = None;
    /// Whether its stages run an arbitrary program instead of the worker.
    const COMMAND: bool = false;
    /// Whether its stages compute tensors on the device that a run chooses.
    const DEVICE: bool = false;
    /// Whether its stages are trainings, which keep digests of their steps on request.
    const TRAINING: bool = false;
    /// Whether its stages combine the metrics of others into a table.
    const COMPARISON: bool = false;
    /// Its outputs.
    fn outputs(&self) -> Vec<Output> {
        Self::OUTPUTS.to_vec()
    }
    /// Its inputs.
    fn inputs(&self) -> Vec<Input>;
    /// Checks ranges, so that an invalid value is reported before anything runs.
    fn check(&self) -> Result<(), Complaint>;
    /// Whether its result has the same bytes on every machine. Then it computes on the CPU, and fails in a run that asks for a GPU.
    fn is_portable(&self) -> bool {
        false
    }
    /// The most processes that can divide its work among them with the same result, a power of two.
    fn most_processes(&self) -> u32 {
        1
    }
    /// The output that was published, if the stage says which one.
    fn expected(&self) -> Option<Expected> {
        None
    }
    /// The parameters that decide the result, as in the preimage. By default, all fields except those above.
    fn parameters(&self) -> serde_json::Value {
        hashed(self)
    }
}

/// All fields except those that name sources, and those that are not hashed.
pub fn hashed<K: Kind>(kind: &K) -> serde_json::Value {
    let mut value = serde_json::to_value(kind).expect("parameters are plain data");
    for path in K::SOURCES.iter().chain(K::NOT_HASHED) {
        left_out::leave_out(&mut value, path, &|_| true);
    }
    value
}
