//! Attestations of results: an in-toto Statement v1 with a SLSA provenance v1 predicate
//! (<https://in-toto.io/Statement/v1>, <https://slsa.dev/spec/v1.0/provenance>). The same types are used to write and
//! to read it.

use anyhow::{Context, Result, ensure};
use caco_engine::{
    digest::{self, Digest},
    gpu::Gpu,
    key::{Key, Preimage},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, io, path::Path};

/// The type of every statement.
pub const STATEMENT: &str = "https://in-toto.io/Statement/v1";
/// The predicate type of provenance.
pub const PROVENANCE: &str = "https://slsa.dev/provenance/v1";
/// An identifier defined in this module's documentation. A UUID cannot belong to anyone else, unlike the name of a
/// crate or a domain.
macro_rules! identifier {
    ($name:literal) => {
        concat!("urn:uuid:6fb3470a-f763-402e-81ae-3658dc381f04#", $name)
    };
}
pub(super) use identifier;

/// The prefix of identifiers before version 0.1.0: pages of an unrelated crate.
const FORMER: &str = "https://docs.rs/caco/latest/caco/provenance/index.html#";

/// Whether an identifier in a statement is the current one, or its former equivalent.
pub fn is_identifier(found: &str, now: &str) -> bool {
    let name = |text: &str| text.split_once('#').map(|(_, name)| name.to_string());
    found == now || (found.starts_with(FORMER) && name(found) == name(now))
}

/// The build type, documented on the page of the parent module.
pub const BUILD_TYPE: &str = identifier!("build-type-stage-v1");
/// The builder: this program, on a machine of the signer.
pub const BUILDER: &str = identifier!("builder-caco-run-v1");
/// The annotation of a folder that lists what was left out of it.
pub const EXCEPT: &str = "except";
/// The media type of a folder's listing, which its digests cover.
pub const LISTING: &str = "application/vnd.caco.listing";

/// A statement about some subjects.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Statement<P> {
    /// [`STATEMENT`].
    #[serde(rename = "_type")]
    pub kind: String,
    /// The subjects.
    pub subject: Vec<Descriptor>,
    /// The type of the predicate.
    pub predicate_type: String,
    /// The predicate.
    pub predicate: P,
}

/// Something with a digest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its URI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// Digests by algorithm, hexadecimal.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub digest: BTreeMap<String, String>,
    /// Its media type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Further annotations.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub annotations: Map<String, Value>,
}

/// How a result was produced.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Provenance {
    /// What was requested, and its inputs.
    pub build_definition: Definition,
    /// How it ran.
    pub run_details: Details,
}

/// What was requested.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Definition {
    /// [`BUILD_TYPE`].
    pub build_type: String,
    /// The resolved stage.
    pub external_parameters: External,
    /// What the runner decided, which is not part of the key.
    pub internal_parameters: Internal,
    /// The inputs.
    pub resolved_dependencies: Vec<Descriptor>,
}

/// A resolved stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct External {
    /// Its name.
    pub stage: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// The profile that was applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// The values that were set on the command line.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<String>,
    /// The result's key.
    pub key: Key,
    /// The preimage, whose digest is the key.
    pub preimage: Preimage,
    /// All parameters, including those that do not affect the result.
    pub parameters: Value,
}

/// How the stage was run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Internal {
    /// Digest of the code behind the stage kind.
    pub code: Option<Digest>,
    /// What decides the last bits of a float: CPU, threads of one operation, libtorch, GPU. `None` if no tensor was
    /// involved.
    pub determinism_class: Option<Value>,
    /// The allocated CPU cores.
    pub threads: u32,
    /// The allocated GPUs.
    pub gpus: Vec<Gpu>,
    /// Which attempt it was.
    pub attempt: u32,
    /// Whether it resumed from a checkpoint.
    pub resumed: bool,
}

/// How a result was computed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// The builder.
    pub builder: Builder,
    /// The times.
    pub metadata: Metadata,
    /// The by-products.
    pub byproducts: Vec<Descriptor>,
}

/// The builder of a result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Builder {
    /// [`BUILDER`].
    pub id: String,
    /// Its parts and their versions.
    pub version: BTreeMap<String, String>,
    /// The signing public key, in PEM. It proves nothing by itself: the reader decides whether to trust it.
    #[serde(rename = "caco_publicKey")]
    pub public_key: String,
    /// The machine's name.
    #[serde(rename = "caco_host")]
    pub host: String,
}

/// When a result was computed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// The result, and the attempt that computed it.
    pub invocation_id: String,
    /// When the stage started.
    pub started_on: String,
    /// When it ended.
    pub finished_on: String,
}

impl<P: Serialize + DeserializeOwned> Statement<P> {
    /// Creates a statement.
    pub fn new(predicate_type: &str, subject: Vec<Descriptor>, predicate: P) -> Self {
        Statement { kind: STATEMENT.into(), subject, predicate_type: predicate_type.into(), predicate }
    }

    /// Its text.
    pub fn text(&self) -> String {
        serde_json::to_string(self).expect("a statement is plain data")
    }

    /// Parses a statement whose predicate must be of this type.
    pub fn parse(text: &[u8], predicate_type: &str) -> Result<Self> {
        let outer: Statement<Value> = serde_json::from_slice(text).context("it is not an in-toto statement")?;
        ensure!(outer.kind == STATEMENT, "it is a statement of type '{}', not '{STATEMENT}'", outer.kind);
        let found = &outer.predicate_type;
        ensure!(is_identifier(found, predicate_type), "its predicate is of type '{found}', not '{predicate_type}'");
        let predicate = serde_json::from_value(outer.predicate).context("its predicate does not match its type")?;
        Ok(Statement { kind: outer.kind, subject: outer.subject, predicate_type: outer.predicate_type, predicate })
    }
}

impl Descriptor {
    /// A descriptor with this name.
    pub fn named(name: impl Into<String>) -> Self {
        Descriptor { name: Some(name.into()), ..Descriptor::default() }
    }

    /// Sets both digests.
    pub fn digests(mut self, blake3: Digest, sha256: Digest) -> Self {
        self.digest = [("blake3", blake3), ("sha256", sha256)].map(|(name, d)| (name.into(), d.to_string())).into();
        self
    }

    /// A descriptor of some bytes.
    pub fn of_bytes(name: impl Into<String>, bytes: &[u8]) -> Self {
        Self::named(name).digests(Digest::of(bytes), digest::sha256(bytes))
    }

    /// A descriptor of a file.
    pub fn of_file(name: impl Into<String>, path: &Path) -> io::Result<Self> {
        let (blake3, sha256, _) = digest::both_of_file(path)?;
        Ok(Self::named(name).digests(blake3, sha256))
    }

    /// Sets the URI.
    pub fn at(mut self, uri: impl Into<String>) -> Self {
        self.uri = Some(uri.into());
        self
    }

    /// Adds an annotation.
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

    /// The annotation of this name, if it is text.
    pub fn noted(&self, name: &str) -> Option<&str> {
        self.annotations.get(name)?.as_str()
    }
}
