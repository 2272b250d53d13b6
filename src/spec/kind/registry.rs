//! The table of all stage kinds.

use super::*;
use schemars::schema_for;
use std::sync::OnceLock;

/// One stage kind, without its type.
pub struct Entry {
    /// The word in pipeline files.
    pub name: &'static str,
    /// The version of its code, as declared.
    pub version: u32,
    /// What it writes besides its metrics, where that is the same for all its stages.
    pub outputs: &'static [Output],
    /// Its fields as a JSON schema: types, defaults, meanings.
    pub schema: fn() -> schemars::Schema,
    /// Reads a stage's body.
    pub read: fn(&str) -> Result<Read, ReadError>,
    fields: OnceLock<Vec<String>>,
}

/// A stage's body, read.
pub struct Read {
    /// The parameters that decide the result, as canonical JSON.
    pub key_parameters: Box<str>,
    /// All parameters, defaults filled in, as JSON. Empty where they are the same text.
    pub parameters: Box<str>,
    /// What the stage reads.
    pub inputs: Vec<Input>,
    /// What the stage writes.
    pub outputs: Vec<Output>,
}

/// Why a stage's body could not be read.
pub enum ReadError {
    /// It does not fit the kind's type.
    Ron(Box<ron::error::SpannedError>),
    /// A value is out of range.
    Range(Complaint),
}

impl Entry {
    const fn of<K: Kind>() -> Entry {
        Entry {
            name: K::NAME,
            version: K::VERSION,
            outputs: K::OUTPUTS,
            schema: || schema_for!(K),
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

static KINDS: [Entry; 14] = [
    Entry::of::<Command>(),
    Entry::of::<Synthesize>(),
    Entry::of::<Index>(),
    Entry::of::<Pack>(),
    Entry::of::<InitEncoder>(),
    Entry::of::<ImportWeights>(),
    Entry::of::<InitBank>(),
    Entry::of::<Pretrain>(),
    Entry::of::<Features>(),
    Entry::of::<Knn>(),
    Entry::of::<LinearEval>(),
    Entry::of::<TransferEval>(),
    Entry::of::<ExportWeights>(),
    Entry::of::<Compare>(),
];

/// Every kind, in the order data flows.
pub fn kinds() -> &'static [Entry] {
    &KINDS
}

/// The kind of that name.
pub fn find(name: &str) -> Option<&'static Entry> {
    KINDS.iter().find(|entry| entry.name == name)
}

/// RON as pipeline files have it: `Some(…)` may be left out.
pub fn options() -> ron::Options {
    ron::Options::default().with_default_extension(ron::extensions::Extensions::IMPLICIT_SOME)
}

fn read<K: Kind>(text: &str) -> Result<Read, ReadError> {
    let kind: K = options().from_str(text).map_err(|e| ReadError::Ron(Box::new(e)))?;
    kind.check().map_err(ReadError::Range)?;
    let all = canonical(&serde_json::to_value(&kind).expect("parameters are plain data"));
    let deciding = canonical(&without_neutral::<K>(kind.parameters()));
    let parameters = if all == deciding { "".into() } else { all };
    Ok(Read { key_parameters: deciding, parameters, inputs: kind.inputs(), outputs: kind.outputs() })
}

fn without_neutral<K: Kind>(mut value: serde_json::Value) -> serde_json::Value {
    let Some(fields) = value.as_object_mut() else { return value };
    for (name, neutral) in K::NEUTRAL {
        let neutral: serde_json::Value = serde_json::from_str(neutral).expect("neutral values are JSON");
        if fields.get(*name) == Some(&neutral) {
            fields.remove(*name);
        }
    }
    value
}

/// JSON with sorted names and no spaces.
fn canonical(value: &serde_json::Value) -> Box<str> {
    // serde_json's map is sorted as long as no crate turns on `preserve_order`; a test holds that.
    value.to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_canonical() {
        let value: serde_json::Value = serde_json::from_str(r#"{"b": 0.08, "a": [1, 1e-6]}"#).unwrap();
        assert_eq!(&*canonical(&value), r#"{"a":[1,1e-6],"b":0.08}"#);
    }

    #[test]
    fn every_declared_source_manner_and_neutral_value_is_a_field() {
        fn holds<K: Kind>() {
            let entry = Entry::of::<K>();
            let known = |path: &&str| entry.fields().iter().any(|f| Some(f.as_str()) == path.split('.').next());
            assert!(K::SOURCES.iter().chain(K::MANNER).all(&known), "{}", K::NAME);
            assert!(K::NEUTRAL.iter().all(|(path, _)| known(path)), "{}", K::NAME);
        }
        holds::<Command>();
        holds::<Synthesize>();
        holds::<Index>();
        holds::<Pack>();
        holds::<InitEncoder>();
        holds::<ImportWeights>();
        holds::<InitBank>();
        holds::<Pretrain>();
        holds::<Features>();
        holds::<Knn>();
        holds::<LinearEval>();
        holds::<TransferEval>();
        holds::<ExportWeights>();
        holds::<Compare>();
    }

    #[test]
    fn what_decides_no_bit_reaches_the_worker_and_no_key() {
        let text = |more| {
            let model = "model: (arch: ResNet18), views: SingleCrop(size: 32), epochs: 1, batch: 8";
            format!(r#"(index: "i", init: "b", {model}{more})"#)
        };
        let read = |more| (find("pretrain").unwrap().read)(&text(more)).ok().unwrap();
        let (kept, again) = (read(""), read(", activations: Recompute"));
        assert_eq!(kept.key_parameters, again.key_parameters);
        assert!(again.parameters.contains(r#""activations":"Recompute""#), "{}", again.parameters);
    }

    #[test]
    fn every_field_of_every_kind_says_what_it_means() {
        for entry in kinds() {
            let schema = (entry.schema)();
            let properties = schema.get("properties").and_then(|p| p.as_object()).unwrap();
            for (field, property) in properties {
                assert!(property.get("description").is_some(), "{}.{field} has no documentation", entry.name);
            }
        }
    }
}
