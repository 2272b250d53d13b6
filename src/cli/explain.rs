//! `caco explain`

use super::{print, print_json};
use crate::registry::REGISTRY;
use anyhow::Result;
use caco_inspect::name;
use caco_pipeline::{diagnostic::Diagnostic, kind::Entry, policy::Policy};
use clap::Args;
use serde_json::{Map, Value};
use std::{fmt::Write, process::ExitCode};

#[derive(Args)]
#[command(after_help = "Examples:\n  caco explain\n  caco explain pretrain")]
pub struct ExplainArgs {
    /// The stage kind [default: all of them, a line each]
    kind: Option<String>,
    /// Print a JSON schema
    #[arg(long)]
    json: bool,
}

pub fn main(args: &ExplainArgs) -> Result<ExitCode> {
    let Some(kind) = &args.kind else {
        let lines: String = REGISTRY.kinds().iter().map(|e| format!("{:16} {}\n", e.name, headline(e))).collect();
        print(&lines)?;
        return Ok(ExitCode::SUCCESS);
    };
    let Some(entry) = REGISTRY.find(kind) else {
        let error = Diagnostic::new(format!("no stage kind is called '{kind}'"));
        return Err(name::plain(error.nearest(kind, REGISTRY.kinds().iter().map(|e| e.name))));
    };
    let schema = (entry.schema)().to_value();
    if args.json {
        print_json(&schema)?
    } else {
        print(&text(entry, &schema))?
    }
    Ok(ExitCode::SUCCESS)
}

fn headline(entry: &Entry) -> String {
    headline_of(&(entry.schema)().to_value())
}

/// The first sentence of a description, or the part of it before a semicolon.
fn headline_of(schema: &Value) -> String {
    let text = description(schema);
    let end = [". ", "; "].iter().filter_map(|mark| text.find(mark)).min().unwrap_or(text.len());
    text[..end].trim_end_matches('.').to_string()
}

/// Every field with type, default and meaning, then the types that they name.
fn text(entry: &Entry, schema: &Value) -> String {
    let mut text = format!("{} (version {}): {}\n\n", entry.name, entry.version, description(schema));
    fields(&mut text, schema);
    let policy = schemars::schema_for!(Policy).to_value();
    text += "\nrun: how it is run; joins no key\n";
    fields(&mut text, &policy);
    text += "\npin: values of the determinism class that join the key, by name\n";
    for (name, definition) in members(schema, "$defs").into_iter().flatten() {
        let list =
            if definition.get("prefixItems").is_some() { format!("{}: ", type_of(definition)) } else { String::new() };
        write!(text, "\n{name}: {list}{}\n", description(definition)).expect("a string takes all text");
        fields(&mut text, definition);
        choices(&mut text, schema, definition);
    }
    text
}

fn fields(text: &mut String, schema: &Value) {
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, field) in members(schema, "properties").into_iter().flatten() {
        let default = match field.get("default") {
            _ if required.contains(&name.as_str()) => String::from("must be given"),
            Some(Value::Null) | None => "may be left out".into(),
            Some(default) => format!("default {}", default_of(field, default)),
        };
        let line = format!("  {name}: {} ({default})", type_of(field));
        writeln!(text, "{line}\n      {}", description(field)).expect("a string takes all text");
    }
}

/// The values of an enum, a definition in the schema `whole`.
fn choices(text: &mut String, whole: &Value, schema: &Value) {
    for choice in ["oneOf", "enum"].iter().filter_map(|name| schema[*name].as_array()).flatten() {
        let name = match (choice.as_str(), choice.get("const").and_then(Value::as_str), members(choice, "properties")) {
            (Some(name), ..) | (_, Some(name), _) => name.to_string(),
            // The fields of what has its own name are below.
            (.., Some(fields)) if fields.iter().all(|(name, of)| type_of(of) == *name) => {
                for (name, of) in fields {
                    writeln!(text, "  {name}(…)\n      {}", headline_of(resolve(whole, of)))
                        .expect("a string takes all text");
                }
                continue;
            }
            (.., Some(fields)) => fields.iter().map(|(name, of)| format!("{name}({})", type_of(of))).collect(),
            _ => continue,
        };
        writeln!(text, "  {name}\n      {}", description(choice)).expect("a string takes all text");
    }
}

pub(super) fn members<'v>(schema: &'v Value, name: &str) -> Option<&'v Map<String, Value>> {
    schema.get(name)?.as_object()
}

pub(super) fn description(schema: &Value) -> String {
    schema["description"].as_str().unwrap_or_default().replace('\n', " ")
}

/// A type in words.
pub(super) fn type_of(schema: &Value) -> String {
    if let Some(reference) = schema["$ref"].as_str() {
        return reference.rsplit('/').next().unwrap_or(reference).into();
    }
    if let Some(either) = schema["anyOf"].as_array().or(schema["allOf"].as_array()) {
        let types: Vec<String> = either.iter().map(type_of).filter(|t| t != "null").collect();
        return types.join(" or ");
    }
    let word = |name: &str| match name {
        "array" if schema["prefixItems"].is_array() => {
            let first: Vec<String> = schema["prefixItems"].as_array().into_iter().flatten().map(type_of).collect();
            match schema["items"].is_object() {
                true => format!("list of {}, then any number of {}", first.join(", "), type_of(&schema["items"])),
                false => format!("({})", first.join(", ")),
            }
        }
        "array" => format!("list of {}", type_of(&schema["items"])),
        "object" => match schema.get("additionalProperties") {
            Some(values) if values.is_object() => format!("map to {}", type_of(values)),
            _ => "struct".into(),
        },
        "integer" => "whole number".into(),
        other => other.to_string(),
    };
    match &schema["type"] {
        Value::String(name) => word(name),
        Value::Array(names) => {
            let names = names.iter().filter_map(Value::as_str).filter(|name| *name != "null");
            names.map(word).collect::<Vec<_>>().join(" or ")
        }
        _ => "value".into(),
    }
}

/// The default of a field as a pipeline file would have it: a tuple is not a list.
fn default_of(field: &Value, default: &Value) -> String {
    match default.as_array().filter(|_| field["prefixItems"].is_array()) {
        Some(items) => format!("({})", items.iter().map(ron_like).collect::<Vec<_>>().join(", ")),
        None => ron_like(default),
    }
}

/// A default as a pipeline file would have it.
fn ron_like(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let fields: Vec<String> = fields.iter().map(|(name, v)| format!("{name}: {}", ron_like(v))).collect();
            format!("({})", fields.join(", "))
        }
        // Names of enums are no strings in RON, and no default of a kind is a text.
        Value::String(name) => name.clone(),
        other => other.to_string(),
    }
}

/// The definition that a schema refers to, in the schema that holds it.
pub(super) fn resolve<'v>(whole: &'v Value, schema: &'v Value) -> &'v Value {
    let name = schema["$ref"].as_str().and_then(|reference| reference.strip_prefix("#/$defs/"));
    name.and_then(|name| whole["$defs"].get(name)).unwrap_or(schema)
}

/// The fields of a schema, or its choices, as a table in Markdown.
#[cfg(test)]
pub(super) fn table(schema: &Value) -> String {
    let mut text = String::new();
    let mut row = |name: &str, of: &Value| {
        let meaning = description(of).replace('|', "\\|");
        writeln!(text, "| `{name}` | {} | {meaning} |", type_of(of)).expect("a string takes all text");
    };
    members(schema, "properties").into_iter().flatten().for_each(|(name, field)| row(name, field));
    for choice in ["oneOf", "anyOf", "enum"].iter().filter_map(|name| schema[*name].as_array()).flatten() {
        match choice["properties"].as_object() {
            // A variant with fields: its tag is the constant among them.
            Some(fields) => {
                let tags = fields.iter().filter_map(|(name, f)| Some(format!("{name}: \"{}\"", f["const"].as_str()?)));
                let rest = fields.iter().filter(|(_, field)| field.get("const").is_none());
                let rest = rest.map(|(name, field)| format!("{name}: {}", type_of(field)));
                row(&tags.chain(rest).collect::<Vec<_>>().join(", "), choice);
            }
            None => row(choice["const"].as_str().or(choice.as_str()).unwrap_or("value"), choice),
        }
    }
    if text.is_empty() { text } else { format!("| field | type | meaning |\n|---|---|---|\n{text}") }
}

/// The fields of a schema with their defaults, as a table in Markdown.
#[cfg(test)]
pub(super) fn parameters(schema: &Value) -> String {
    let mut text = String::from("| parameter | default | meaning |\n|---|---|---|\n");
    for (name, field) in members(schema, "properties").into_iter().flatten() {
        let default = field.get("default").map_or_else(|| "must be given".into(), |default| default_of(field, default));
        writeln!(text, "| `{name}` | {default} | {} |", description(field)).expect("a string takes all text");
    }
    text
}
