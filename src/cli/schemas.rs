//! The schema of what each command prints with `--json`, as the page `docs/json.md`. The page is generated: run the test
//! with `UPDATE_DOCS=1` to write it.

use super::{audit, cite, code, data, doctor, explain, keys};
use caco_engine::store;
use caco_inspect::{diff, graph, history, outcome, plan, stage, store as results, sweep, why};
use caco_provenance::{citation, divergence, ro_crate};
use schemars::{Schema, schema_for};
use std::{collections::BTreeMap, fmt::Write, fs, path::Path};

/// What each command prints.
fn schemas() -> Vec<(&'static str, Schema)> {
    vec![
        ("run", schema_for!(outcome::Outcome)),
        ("plan", schema_for!(Vec<plan::Planned>)),
        ("why", schema_for!(why::Why)),
        ("show", schema_for!(stage::Stage)),
        ("sweep", schema_for!(Vec<sweep::Table>)),
        ("history", schema_for!(Vec<history::Past>)),
        ("watch", schema_for!(BTreeMap<String, f64>)),
        ("graph", schema_for!(graph::Graph)),
        ("diff", schema_for!(diff::Diff)),
        ("audit", schema_for!(audit::Audited)),
        ("audit BUNDLE", schema_for!(citation::Checked)),
        ("cite", schema_for!(cite::Citation)),
        ("divergences", schema_for!(Vec<divergence::Diverging>)),
        ("crate", schema_for!(ro_crate::Packed)),
        ("keys list", schema_for!(Vec<keys::Listed>)),
        ("code status", schema_for!(Vec<code::Status>)),
        ("data list", schema_for!(Vec<data::list::Listed>)),
        ("data check", schema_for!(Vec<data::check::Found>)),
        ("data show", schema_for!(Vec<data::show::Row>)),
        ("cache ls", schema_for!(Vec<results::Row>)),
        ("cache du", schema_for!(results::Usage)),
        ("cache gc", schema_for!(store::Collected)),
        ("cache verify", schema_for!(store::Check)),
        ("cache copy", schema_for!(store::Copied)),
        ("doctor", schema_for!(Vec<doctor::Finding>)),
    ]
}

const HEAD: &str = "# What commands print with `--json`

Each command prints one JSON value on stdout. A field may be added in a later version; a field that is removed or changes its type is
noted in the changelog. Keys and digests are 64 hexadecimal digits; times are UTC in RFC 3339.

Not in this list: `caco explain KIND --json` prints a JSON schema, `caco croissant` prints Croissant 1.1 metadata, `caco log STAGE --json`
prints the spans of a stage, one object a line, and `caco bench --json` prints the measurements of a benchmark.
";

fn page() -> String {
    let mut page = HEAD.to_string();
    for (command, schema) in schemas() {
        let schema = schema.to_value();
        write!(page, "\n## `caco {command} --json`\n\n").expect("a string takes all text");
        let root = match schema.get("items") {
            Some(items) => {
                page += "A list. Each item:\n\n";
                explain::resolve(&schema, items)
            }
            None => &schema,
        };
        if root.get("properties").is_none() {
            writeln!(page, "{}", explain::type_of(root)).expect("a string takes all text");
        }
        page += &explain::table(root);
        for (name, definition) in explain::members(&schema, "$defs").into_iter().flatten() {
            if !std::ptr::eq(definition, root) {
                write!(page, "\n**{name}.** {}\n\n", explain::description(definition))
                    .expect("a string takes all text");
                page += &explain::table(definition);
            }
        }
    }
    page
}

#[test]
fn the_page_on_json_is_what_the_types_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/json.md");
    let page = page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == page, "docs/json.md is out of date; run this test with UPDATE_DOCS=1");
}
