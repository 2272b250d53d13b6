//! A stage's key: BLAKE3 over its preimage, a canonical JSON text of everything that decides its result.
//!
//! | value                                              | in the key | why |
//! |----------------------------------------------------|:----------:|-----|
//! | stage kind and the version of its code             | yes | other code may give other results |
//! | digest of the code, while it is not acknowledged   | yes | an unreviewed edit may give other results |
//! | the parameters the stage reads, precision and seed | yes | they decide the result |
//! | content digests of the inputs, by slot             | yes | they decide the result; equal bytes are a cache hit |
//! | values pinned in the pipeline file                 | yes | the file requests it |
//! | the executable bit of an input file                | yes | a program may start it |
//! | names of stages, pipelines and variants            | no  | a name does not change the result |
//! | paths, modification times, owners of files         | no  | only the bytes count |
//! | device, host, thread and worker counts             | no  | they are in the record, and can be pinned |
//! | log intervals, retries, time limits, resources     | no  | they decide how a stage runs, not what it computes |
//! | the digest of a published table (`expect`)         | no  | the result is compared with it, not made from it |
//! | comments and order in the pipeline file            | no  | the pipeline is the same |
//! | parameters added later, at their default value     | no  | the default is today's behaviour |

use super::digest::Digest;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, str::FromStr};

/// The identity of a result: the digest of its preimage.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, schemars::JsonSchema, Deserialize)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Key(pub Digest);

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Key {
    type Err = super::digest::NotADigest;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Key)
    }
}

/// The version of the preimage format with executable inputs. Without them a preimage has format 1, as it always had: its
/// key is that of results from before there was another.
const FORMAT: u32 = 2;

/// A stage's preimage, as it is kept beside the result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preimage {
    /// The format version.
    pub format: u32,
    /// The stage kind.
    pub kind: String,
    /// The version of the kind's code.
    pub version: u32,
    /// The digest of the kind's code, if it is not the acknowledged one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Digest>,
    /// The parameters that decide the result.
    pub parameters: serde_json::Value,
    /// Pinned values, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pin: BTreeMap<String, String>,
    /// Content digests of the inputs, by slot.
    pub inputs: BTreeMap<String, Digest>,
    /// The slots of inputs that are executable files, sorted. The files of a folder are in its digest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub executable: Vec<String>,
}

/// The parts of a preimage that do not depend on the inputs.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// The stage kind.
    pub kind: &'a str,
    /// The version of its code.
    pub version: u32,
    /// The digest of its code, if it is not the acknowledged one.
    pub code: Option<Digest>,
    /// Its parameters as canonical JSON.
    pub parameters: &'a str,
    /// Pinned values.
    pub pin: &'a BTreeMap<String, String>,
}

impl Parts<'_> {
    /// The canonical text with these inputs and the slots of those that are executable files; it sorts both. The same text as
    /// [`Preimage`] serialises to.
    pub fn text(&self, inputs: &mut [(&str, Digest)], executable: &mut [&str]) -> String {
        use std::fmt::Write;
        inputs.sort_unstable_by_key(|(slot, _)| *slot);
        executable.sort_unstable();
        let format = if executable.is_empty() { 1 } else { FORMAT };
        let mut text = String::with_capacity(160 + self.parameters.len() + inputs.len() * 90);
        let quoted = |s: &str| serde_json::to_string(s).expect("strings are JSON");
        write!(text, r#"{{"format":{format},"kind":{},"version":{}"#, quoted(self.kind), self.version)
            .expect("a string takes all text");
        if let Some(code) = self.code {
            write!(text, r#","code":"{code}""#).expect("a string takes all text");
        }
        text.push_str(r#","parameters":"#);
        text.push_str(self.parameters);
        if !self.pin.is_empty() {
            text.push_str(r#","pin":"#);
            text.push_str(&serde_json::to_string(self.pin).expect("strings are JSON"));
        }
        text.push_str(r#","inputs":{"#);
        for (i, (slot, digest)) in inputs.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(text, r#"{comma}{}:"{digest}""#, quoted(slot)).expect("a string takes all text");
        }
        text.push('}');
        if !executable.is_empty() {
            text.push_str(r#","executable":"#);
            text.push_str(&serde_json::to_string(executable).expect("strings are JSON"));
        }
        text.push('}');
        text
    }
}

/// The key of a canonical text.
pub fn of_text(text: &str) -> Key {
    Key(Digest::of(text.as_bytes()))
}

impl Preimage {
    /// The key.
    pub fn key(&self) -> Key {
        of_text(&serde_json::to_string(self).expect("a preimage is JSON"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parts<'a>(parameters: &'a str, pin: &'a BTreeMap<String, String>) -> Parts<'a> {
        Parts { kind: "pretrain", version: 3, code: None, parameters, pin }
    }

    #[test]
    fn keys_are_frozen() {
        // Results in users' stores stand under these keys.
        let text = parts(r#"{"epochs":200,"temperature":0.08}"#, &BTreeMap::new())
            .text(&mut [("index", Digest::of(b"i")), ("bank", Digest::of(b"b"))], &mut []);
        insta::assert_snapshot!(format!("{text}\n{}", of_text(&text)));
        let text = parts("{}", &BTreeMap::new()).text(&mut [("run", Digest::of(b"r"))], &mut ["run"]);
        insta::assert_snapshot!(format!("{text}\n{}", of_text(&text)));
    }

    #[test]
    fn every_part_moves_the_key() {
        let none = BTreeMap::new();
        let pin = BTreeMap::from([("device".to_string(), "cuda".to_string())]);
        let base = parts("{}", &none);
        let input = [("a", Digest::of(b"1"))];
        let key = |parts: Parts, mut inputs: Vec<(&str, Digest)>| of_text(&parts.text(&mut inputs, &mut []));
        let all = [
            key(base, input.to_vec()),
            key(Parts { kind: "knn", ..base }, input.to_vec()),
            key(Parts { version: 4, ..base }, input.to_vec()),
            key(Parts { code: Some(Digest::of(b"c")), ..base }, input.to_vec()),
            key(Parts { parameters: r#"{"k":1}"#, ..base }, input.to_vec()),
            key(Parts { pin: &pin, ..base }, input.to_vec()),
            key(base, vec![("b", Digest::of(b"1"))]),
            key(base, vec![("a", Digest::of(b"2"))]),
            key(base, vec![]),
            of_text(&base.text(&mut input.clone(), &mut ["a"])),
        ];
        let distinct: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
    }

    proptest! {
        #[test]
        fn the_text_is_what_a_preimage_serialises_to(
            parameters in prop::collection::btree_map("[a-z\"\\\\é]{1,4}", any::<i64>(), 0..4),
            pin in prop::collection::btree_map(".{0,4}", ".{0,4}", 0..3),
            inputs in prop::collection::btree_map(".{0,6}", any::<[u8; 32]>().prop_map(Digest), 0..5),
            code in prop::option::of(any::<[u8; 32]>().prop_map(Digest)),
            executable in prop::collection::btree_set(".{0,6}", 0..3),
        ) {
            let parameters = serde_json::json!(parameters);
            let executable: Vec<String> = executable.into_iter().collect();
            let format = if executable.is_empty() { 1 } else { FORMAT };
            let preimage = Preimage { format, kind: "k".into(), version: 1, code, parameters: parameters.clone(), pin: pin.clone(), inputs: inputs.clone(), executable: executable.clone() };
            let mut executable: Vec<&str> = executable.iter().rev().map(String::as_str).collect();
            let mut shuffled: Vec<(&str, Digest)> = inputs.iter().rev().map(|(slot, digest)| (slot.as_str(), *digest)).collect();
            let text = Parts { kind: "k", version: 1, code, parameters: &parameters.to_string(), pin: &pin }.text(&mut shuffled, &mut executable);
            prop_assert_eq!(&text, &serde_json::to_string(&preimage).unwrap());
            prop_assert_eq!(of_text(&text), preimage.key());
            prop_assert_eq!(serde_json::from_str::<Preimage>(&text).unwrap(), preimage);
        }
    }
}
