//! What is said of a result: an in-toto Statement v1 with a SLSA provenance v1 predicate
//! (<https://in-toto.io/Statement/v1>, <https://slsa.dev/spec/v1.0/provenance>). The same types write it and read it.

use anyhow::{Context, Result, ensure};
use caco_engine::{
    digest::{self, Digest},
    key::{Key, Preimage},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, io, path::Path};

/// The type of every statement.
pub const STATEMENT: &str = "https://in-toto.io/Statement/v1";
/// The predicate that tells how something was made.
pub const PROVENANCE: &str = "https://slsa.dev/provenance/v1";
/// The identifier of a thing that this module's documentation defines. A UUID belongs to nobody else, which the name of a
/// crate or of a domain may.
macro_rules! identifier {
    ($name:literal) => {
        concat!("urn:uuid:6fb3470a-f763-402e-81ae-3658dc381f04#", $name)
    };
}
pub(super) use identifier;

/// What identifiers began with before version 0.1.0: pages of a crate that is somebody else's.
const FORMER: &str = "https://docs.rs/caco/latest/caco/provenance/index.html#";

/// Whether an identifier in a statement is the one that is written now, or the one that was written in its place before.
pub fn is_identifier(found: &str, now: &str) -> bool {
    let name = |text: &str| text.split_once('#').map(|(_, name)| name.to_string());
    found == now || (found.starts_with(FORMER) && name(found) == name(now))
}

/// How a stage becomes a result. The page that this module opens with.
pub const BUILD_TYPE: &str = identifier!("build-type-stage-v1");
/// Who made it: this program, on a machine of the signer's.
pub const BUILDER: &str = identifier!("builder-caco-run-v1");
/// The form of a folder's listing, over which its digests are taken.
pub const LISTING: &str = "application/vnd.caco.listing";

/// A statement about some subjects.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Statement<P> {
    /// [`STATEMENT`].
    #[serde(rename = "_type")]
    pub kind: String,
    /// What it is about.
    pub subject: Vec<Descriptor>,
    /// What is said, by type.
    pub predicate_type: String,
    /// What is said.
    pub predicate: P,
}

/// Something with a digest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is called here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where it is found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// Digests by algorithm, hexadecimal.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub digest: BTreeMap<String, String>,
    /// Its form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// What else is known of it.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub annotations: Map<String, Value>,
}

/// How a result was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Provenance {
    /// What was asked for, and of what.
    pub build_definition: Definition,
    /// How it went.
    pub run_details: Details,
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Definition {
    /// [`BUILD_TYPE`].
    pub build_type: String,
    /// The stage, resolved.
    pub external_parameters: External,
    /// What the runner decided: it joins no key.
    pub internal_parameters: Internal,
    /// What went in.
    pub resolved_dependencies: Vec<Descriptor>,
}

/// A stage, resolved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct External {
    /// Its name.
    pub stage: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// The profile that was laid over it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// The values that were laid over it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<String>,
    /// The result's key.
    pub key: Key,
    /// What the key is the digest of.
    pub preimage: Preimage,
    /// All parameters, those among them that decide nothing.
    pub parameters: Value,
}

/// How the stage was run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Internal {
    /// Digest of the code behind the stage kind.
    pub code: Option<Digest>,
    /// What decides the last bits of a float: CPU, threads of one operation, libtorch, GPU. Nothing where no tensor was
    /// touched.
    pub determinism_class: Option<Value>,
    /// The cores it had.
    pub threads: u32,
    /// The GPUs it had.
    pub gpus: Vec<u32>,
    /// Which try it was.
    pub attempt: u32,
    /// Whether it went on from a checkpoint.
    pub resumed: bool,
}

/// How it went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// Who made it.
    pub builder: Builder,
    /// When.
    pub metadata: Metadata,
    /// What else it left.
    pub byproducts: Vec<Descriptor>,
}

/// Who made a result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Builder {
    /// [`BUILDER`].
    pub id: String,
    /// Its parts and their versions.
    pub version: BTreeMap<String, String>,
    /// The public key that signs, in PEM. It proves nothing by itself: trust is the reader's.
    #[serde(rename = "caco_publicKey")]
    pub public_key: String,
    /// The machine's name.
    #[serde(rename = "caco_host")]
    pub host: String,
}

/// When a result was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// The result, and the try that made it.
    pub invocation_id: String,
    /// When the stage started.
    pub started_on: String,
    /// When it ended.
    pub finished_on: String,
}

impl<P: Serialize + DeserializeOwned> Statement<P> {
    /// A statement.
    pub fn new(predicate_type: &str, subject: Vec<Descriptor>, predicate: P) -> Self {
        Statement { kind: STATEMENT.into(), subject, predicate_type: predicate_type.into(), predicate }
    }

    /// Its text.
    pub fn text(&self) -> String {
        serde_json::to_string(self).expect("a statement is plain data")
    }

    /// Reads a statement whose predicate must be of this type.
    pub fn parse(text: &[u8], predicate_type: &str) -> Result<Self> {
        let outer: Statement<Value> = serde_json::from_slice(text).context("it is no in-toto statement")?;
        ensure!(outer.kind == STATEMENT, "it is a statement of type '{}', not '{STATEMENT}'", outer.kind);
        let found = &outer.predicate_type;
        ensure!(is_identifier(found, predicate_type), "its predicate is of type '{found}', not '{predicate_type}'");
        let predicate = serde_json::from_value(outer.predicate).context("its predicate is not as its type has it")?;
        Ok(Statement { kind: outer.kind, subject: outer.subject, predicate_type: outer.predicate_type, predicate })
    }
}

impl Descriptor {
    /// Something of this name.
    pub fn named(name: impl Into<String>) -> Self {
        Descriptor { name: Some(name.into()), ..Descriptor::default() }
    }

    /// With both digests.
    pub fn digests(mut self, blake3: Digest, sha256: Digest) -> Self {
        self.digest = [("blake3", blake3), ("sha256", sha256)].map(|(name, d)| (name.into(), d.to_string())).into();
        self
    }

    /// Some bytes.
    pub fn of_bytes(name: impl Into<String>, bytes: &[u8]) -> Self {
        Self::named(name).digests(Digest::of(bytes), digest::sha256(bytes))
    }

    /// A file's bytes.
    pub fn of_file(name: impl Into<String>, path: &Path) -> io::Result<Self> {
        let (blake3, sha256, _) = digest::both_of_file(path)?;
        Ok(Self::named(name).digests(blake3, sha256))
    }

    /// Where it is found.
    pub fn at(mut self, uri: impl Into<String>) -> Self {
        self.uri = Some(uri.into());
        self
    }

    /// With something else that is known of it.
    pub fn note(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.annotations.insert(name.into(), value.into());
        self
    }

    /// Its BLAKE3.
    pub fn blake3(&self) -> Option<Digest> {
        self.digest.get("blake3")?.parse().ok()
    }

    /// Its SHA-256.
    pub fn sha256(&self) -> Option<Digest> {
        self.digest.get("sha256")?.parse().ok()
    }

    /// Its name, or nothing.
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    /// What is noted of it under a name, where it is text.
    pub fn noted(&self, name: &str) -> Option<&str> {
        self.annotations.get(name)?.as_str()
    }
}
