//! Checks the shapes of the parts of a pipeline file.

use super::{
    diagnostic::Diagnostic,
    tree::{Body, Field, Node, Span},
};
use std::collections::HashSet;

pub(super) fn fields<'n, 'a>(node: &'n Node<'a>, expected: &str) -> Result<&'n [Field<'a>], Diagnostic> {
    node.fields().ok_or_else(|| Diagnostic::new(expected).at(node.at))
}

pub(super) fn into_fields<'a>(node: Node<'a>, expected: &str) -> Result<Vec<Field<'a>>, Diagnostic> {
    match node.body {
        Body::Struct(fields) => Ok(fields),
        Body::Tuple(items) if items.is_empty() => Ok(vec![]),
        _ => Err(Diagnostic::new(expected).at(node.at)),
    }
}

pub(super) fn known_fields(fields: &[Field], known: &[&str], what: &str) -> Result<(), Diagnostic> {
    let Some(field) = fields.iter().find(|f| !known.contains(&f.key)) else { return Ok(()) };
    Err(Diagnostic::new(format!("{what} has no field '{}'", field.key))
        .at(field.at)
        .nearest(field.key, known.iter().copied()))
}

/// The entries of a map from strings. A duplicate name is an error.
pub(super) fn named_entries<'a>(node: Node<'a>, what: &str) -> Result<Vec<(String, Node<'a>)>, Diagnostic> {
    let Body::Map(entries) = node.body else {
        return Err(Diagnostic::new(format!("'{what}' is a map: {{\"name\": …}}")).at(node.at));
    };
    let mut seen = HashSet::with_capacity(entries.len());
    let mut named = Vec::with_capacity(entries.len());
    for (key, value) in entries {
        let name =
            key.string().ok_or_else(|| Diagnostic::new("a name here is a string in double quotes").at(key.at))?;
        check_name(&name).map_err(|message| Diagnostic::new(message).at(key.at))?;
        if !seen.insert(name.clone()) {
            return Err(Diagnostic::new(format!("'{name}' appears twice in '{what}'")).at(key.at));
        }
        named.push((name, value));
    }
    Ok(named)
}

fn check_name(name: &str) -> Result<(), String> {
    let good = |c: char| c.is_alphanumeric() || "_-+=.,@".contains(c);
    let fine = name.split('/').all(|part| !part.is_empty() && !part.starts_with('.') && part.chars().all(good));
    if fine {
        Ok(())
    } else {
        Err(format!("'{name}' is not a valid name; use letters, digits and _-+=.,@, with parts separated by /"))
    }
}

pub(super) fn names(node: &Node) -> Result<Vec<(String, Span)>, Diagnostic> {
    let Body::List(items) = &node.body else {
        return Err(Diagnostic::new("this is a list of names: [\"…\"]").at(node.at));
    };
    let name = |n: &Node| n.string().map(|s| (s, n.at)).ok_or_else(|| Diagnostic::new("a name is a string").at(n.at));
    items.iter().map(name).collect()
}
