//! The table of stage kinds.

use super::{
    Caution, Command, Complaint, Expected, Input, Kind, Output, Source, Tolerance, Upstream, ensure,
    left_out::leave_out,
};
use crate::code::Codebase;
use schemars::schema_for;
use std::sync::{LazyLock, OnceLock};

/// One stage kind, without its type.
#[derive(Debug)]
pub struct Entry {
    /// The name in pipeline files.
    pub name: &'static str,
    /// The version of its code, as declared.
    pub version: u32,
    /// Its outputs besides its metrics, if they are the same for all its stages.
    pub outputs: &'static [Output],
    /// Whether its stages run an arbitrary program instead of the worker.
    pub command: bool,
    /// Whether its stages compute tensors on the device that a run chooses.
    pub device: bool,
    /// Whether its stages are trainings, which keep digests of their steps on request.
    pub training: bool,
    /// Whether its stages combine the metrics of others into a table.
    pub comparison: bool,
    /// How much results of different determinism classes may differ.
    pub tolerance: Tolerance,
    /// Its fields as a JSON schema: types, defaults, meanings.
    pub schema: fn() -> schemars::Schema,
    /// Finds what to warn of in a stage's parameters, given as JSON, if there is anything to find.
    pub warn: Option<fn(&str, &Upstream) -> Vec<Caution>>,
    /// Reads a stage's body.
    pub read: fn(&str) -> Result<Read, ReadError>,
    fields: OnceLock<Vec<String>>,
}

/// A stage's body, read.
pub struct Read {
    /// The parameters that decide the result, as canonical JSON.
    pub key_parameters: Box<str>,
    /// All parameters with defaults filled in, as JSON. Empty if equal to `key_parameters`.
    pub parameters: Box<str>,
    /// The stage's inputs.
    pub inputs: Vec<Input>,
    /// The stage's outputs.
    pub outputs: Vec<Output>,
    /// Whether its result has the same bytes on every machine.
    pub is_portable: bool,
    /// The most processes that can divide its work.
    pub most_processes: u32,
    /// The output that was published.
    pub expected: Option<Expected>,
}

/// Why a stage's body could not be read.
pub enum ReadError {
    /// It does not fit the kind's type.
    Ron(Box<ron::error::SpannedError>),
    /// A value is out of range.
    Range(Complaint),
}

impl Entry {
    /// The entry of a kind.
    pub const fn of<K: Kind>() -> Entry {
        Entry {
            name: K::NAME,
            version: K::VERSION,
            outputs: K::OUTPUTS,
            command: K::COMMAND,
            device: K::DEVICE,
            training: K::TRAINING,
            comparison: K::COMPARISON,
            tolerance: K::TOLERANCE,
            schema: || schema_for!(K),
            warn: if K::WARN.is_some() { Some(warn::<K>) } else { None },
            read: read::<K>,
            fields: OnceLock::new(),
        }
    }

    /// The names of its fields.
    pub fn fields(&self) -> &[String] {
        self.fields.get_or_init(|| {
            let schema = (self.schema)();
            let properties = schema.get("properties").and_then(|p| p.as_object());
            properties.map(|p| p.keys().cloned().collect()).unwrap_or_default()
        })
    }
}

/// The known stage kinds, and the code behind each. The engine gets them from its caller.
#[derive(Debug)]
pub struct Registry {
    entries: Vec<Entry>,
    /// The code behind each kind.
    pub code: Codebase,
}

impl Registry {
    /// A registry of these kinds, in the order of the data flow.
    pub const fn new(entries: Vec<Entry>, code: Codebase) -> Self {
        Registry { entries, code }
    }

    /// A registry with only the kind `command`, whose code is not checked.
    pub fn commands() -> &'static Registry {
        static COMMANDS: LazyLock<Registry> =
            LazyLock::new(|| Registry::new(vec![Entry::of::<Command>()], Codebase::default()));
        &COMMANDS
    }

    /// Every kind.
    pub fn kinds(&self) -> &[Entry] {
        &self.entries
    }

    /// The kind of that name.
    pub fn find(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }
}

/// The RON options of pipeline files: `Some(…)` may be left out.
pub fn options() -> ron::Options {
    ron::Options::default().with_default_extension(ron::extensions::Extensions::IMPLICIT_SOME)
}

fn read<K: Kind>(text: &str) -> Result<Read, ReadError> {
    let kind: K = options().from_str(text).map_err(|e| ReadError::Ron(Box::new(e)))?;
    kind.check().and_then(|()| whole_folders(&kind)).map_err(ReadError::Range)?;
    let all = canonical(&serde_json::to_value(&kind).expect("parameters are plain data"));
    let deciding = canonical(&without_defaults::<K>(kind.parameters()));
    let parameters = if all == deciding { "".into() } else { all };
    let (inputs, outputs) = (kind.inputs(), kind.outputs());
    Ok(Read {
        key_parameters: deciding,
        parameters,
        inputs,
        outputs,
        is_portable: kind.is_portable(),
        most_processes: kind.most_processes(),
        expected: kind.expected(),
    })
}

fn warn<K: Kind>(parameters: &str, upstream: &Upstream) -> Vec<Caution> {
    let kind: Option<K> = serde_json::from_str(parameters).ok();
    kind.zip(K::WARN).map(|(kind, warn)| warn(&kind, upstream)).unwrap_or_default()
}

/// Only a command's folders are placed file by file. Other kinds read them where they are.
fn whole_folders<K: Kind>(kind: &K) -> Result<(), Complaint> {
    let partial = kind.inputs().into_iter().find(|input| matches!(input.source, Source::Folder { .. }));
    let slot = partial.filter(|_| !K::COMMAND).map(|input| input.slot);
    ensure(slot.is_none(), &slot.unwrap_or_default(), "cannot leave out files; write Path(\"…\")")
}

fn without_defaults<K: Kind>(mut value: serde_json::Value) -> serde_json::Value {
    for (path, default) in K::DEFAULT_NOT_HASHED {
        let default: serde_json::Value = serde_json::from_str(default).expect("default values are JSON");
        leave_out(&mut value, path, &|value| *value == default);
    }
    value
}

/// JSON with sorted names and no spaces.
fn canonical(value: &serde_json::Value) -> Box<str> {
    // serde_json's map is sorted as long as no crate enables `preserve_order`; a test checks that.
    value.to_string().into()
}

#[cfg(test)]
mod tests;
