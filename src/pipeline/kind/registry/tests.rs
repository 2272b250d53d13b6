//! Tests, with a stage kind of their own: beside the kinds it would be taken for one of them.

use super::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
struct Sample {
    views: Views,
    #[serde(default)]
    rows: Vec<Row>,
    #[serde(default)]
    folder: String,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
enum Views {
    Single { size: u32 },
    Multi { size: u32, count: u32 },
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
struct Row {
    name: String,
    #[serde(default)]
    note: Option<String>,
    #[serde(default)]
    source: String,
}

impl Kind for Sample {
    const NAME: &'static str = "sample";
    const VERSION: u32 = 1;
    const OUTPUTS: &'static [Output] = &[];
    const DEFAULT_NOT_HASHED: &'static [(&'static str, &'static str)] =
        &[("views.Multi.count", "6"), ("rows.note", "null"), ("rows", "[]")];
    const SOURCES: &'static [&'static str] = &["rows.source"];
    const NOT_HASHED: &'static [&'static str] = &["folder", "views.*.size"];
    const TOLERANCE: Tolerance = Tolerance::Exact;
    fn inputs(&self) -> Vec<Input> {
        vec![]
    }
    fn check(&self) -> Result<(), Complaint> {
        Ok(())
    }
}

fn preimage(text: &str) -> Box<str> {
    read::<Sample>(text).ok().expect("the text fits").key_parameters
}

#[test]
fn what_is_not_hashed_can_be_at_any_depth() {
    assert_eq!(&*preimage("(views: Single(size: 3))"), r#"{"views":{"Single":{}}}"#);
    assert_eq!(&*preimage("(views: Multi(size: 3, count: 6))"), r#"{"views":{"Multi":{}}}"#);
    assert_eq!(&*preimage("(views: Multi(size: 3, count: 5))"), r#"{"views":{"Multi":{"count":5}}}"#);
    assert_eq!(
        &*preimage(r#"(views: Single(size: 3), rows: [(name: "a", source: "s"), (name: "b", note: "n")])"#),
        r#"{"rows":[{"name":"a"},{"name":"b","note":"n"}],"views":{"Single":{}}}"#
    );
}

#[test]
fn json_is_canonical() {
    let value: serde_json::Value = serde_json::from_str(r#"{"b": 0.08, "a": [1, 1e-6]}"#).unwrap();
    assert_eq!(&*canonical(&value), r#"{"a":[1,1e-6],"b":0.08}"#);
}
