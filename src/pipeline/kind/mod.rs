//! What a stage kind is: a struct of parameters that says what it reads and writes. `command` is the one kind that the
//! engine brings; all others come from its caller, in a [`Registry`].

mod command;
mod registry;
mod tolerance;

pub use command::{Command, Delivery, Isolation};
pub use registry::{Entry, Read, ReadError, Registry, options};
pub use tolerance::Tolerance;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::borrow::Cow;

/// How the slot of a program is called: this, and its name.
pub const TOOL_SLOT: &str = "tool ";

/// Where a stage reads from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Source {
    /// An output of another stage: `Stage("images/train")` is output `train` of stage `images`; the output may be left
    /// out where the stage has one only, or where its first one is meant.
    Stage(String),
    /// A file or folder outside the store. `${VAR}` and `${VAR:-default}` are replaced from the environment; a relative
    /// path starts at the current folder.
    Path(String),
}

/// One input of a stage.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// The name under which the stage finds it, and the field of the pipeline file that says it.
    pub slot: String,
    /// Where it comes from.
    pub source: Source,
    /// How it counts in the stage's key.
    pub role: Role,
}

/// How an input counts in the stage's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Its content digest joins the key.
    Content,
    /// The same, and the source is an output of this name. What a command writes is believed to be one, whatever its name.
    Output(&'static str),
    /// The source is a stage, and what is meant is the input that it has in this slot, or, of a stage that makes what it lists, its
    /// output `images`. It is located, not hashed: the stage's own output, another input here, already holds a digest of all
    /// that matters in it.
    Through(&'static str),
    /// The source names a program: its bytes and its version join the key. The stage finds it on PATH by itself.
    Tool,
}

impl Input {
    /// An input that is hashed, from another stage.
    pub fn stage(slot: &str, stage: &str) -> Self {
        Input { slot: slot.into(), source: Source::Stage(stage.into()), role: Role::Content }
    }

    /// An input that is hashed, from an output of this name of another stage.
    pub fn output(slot: &str, stage: &str, name: &'static str) -> Self {
        Input { role: Role::Output(name), ..Self::stage(slot, stage) }
    }

    /// An index, and beside it (slot `<slot>.images`) the folder of images that it lists.
    pub fn index(slot: &str, stage: &str) -> [Self; 2] {
        let images =
            Input { slot: format!("{slot}.images"), source: Source::Stage(stage.into()), role: Role::Through("root") };
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

/// A value that is out of range: the field's path inside the stage, and what is wrong with it and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// Dotted path of the field.
    pub field: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

/// Complains about `field` unless `ok`.
pub fn ensure(ok: bool, field: &str, message: impl Into<String>) -> Result<(), Complaint> {
    if ok { Ok(()) } else { Err(Complaint { field: field.into(), message: message.into() }) }
}

/// A stage kind: the parameters of one kind of stage.
pub trait Kind: Serialize + DeserializeOwned + JsonSchema {
    /// The word in pipeline files.
    const NAME: &'static str;
    /// Raised when the same parameters and inputs give other results than before.
    const VERSION: u32;
    /// What the stage writes besides its metrics. The first is meant where a reference names none.
    const OUTPUTS: &'static [Output];
    /// Parameters added since `VERSION` was last raised, each with the JSON of the value that is today's behaviour: at
    /// that value it is left out of the preimage, so that adding it moved no key.
    const DEFAULT_NOT_HASHED: &'static [(&'static str, &'static str)] = &[];
    /// The fields (dotted paths) that say where to read from: what is read there joins the key, the name does not.
    const SOURCES: &'static [&'static str] = &[];
    /// The fields that decide how a result is computed and no bit of it: they join no key, and a stage that was broken off
    /// goes on under another value.
    const NOT_HASHED: &'static [&'static str] = &[];
    /// How far two results under different determinism classes may be apart.
    const TOLERANCE: Tolerance;
    /// Whether its stages are any program, and not the worker's.
    const COMMAND: bool = false;
    /// Whether its stages join the metrics of others into a table.
    const COMPARISON: bool = false;
    /// What it writes.
    fn outputs(&self) -> Vec<Output> {
        Self::OUTPUTS.to_vec()
    }
    /// What it reads.
    fn inputs(&self) -> Vec<Input>;
    /// Checks ranges, so that a wrong value is told before anything runs.
    fn check(&self) -> Result<(), Complaint>;
    /// The parameters that decide the result, as they stand in the preimage. Most kinds: all fields but those above.
    fn parameters(&self) -> serde_json::Value {
        hashed(self)
    }
}

/// All fields but those that say where to read from, and those that decide nothing.
pub fn hashed<K: Kind>(kind: &K) -> serde_json::Value {
    let mut value = serde_json::to_value(kind).expect("parameters are plain data");
    for path in K::SOURCES.iter().chain(K::NOT_HASHED) {
        remove(&mut value, path);
    }
    value
}

fn remove(value: &mut serde_json::Value, path: &str) {
    let Some(fields) = value.as_object_mut() else { return };
    match path.split_once('.') {
        Some((first, rest)) => fields.get_mut(first).into_iter().for_each(|inner| remove(inner, rest)),
        None => drop(fields.remove(path)),
    }
}
