//! Says where and why a stage does not fit its kind, in the words of pipeline files.

use super::{
    diagnostic::Diagnostic,
    kind::Complaint,
    layers::Layered,
    tree::{self, Body, Node, Rendered, Span},
};
use ron::error::SpannedError;

/// The error of a value that is out of range.
pub(super) fn range_error(complaint: Complaint, layered: &Layered) -> Diagnostic {
    let mut at = layered.node.at;
    let mut node = Some(&layered.node);
    for part in complaint.field.split(['.', ' ', '[']).map(|p| p.trim_end_matches(':')) {
        node = node.and_then(|n| n.field(part));
        match node {
            Some(found) => at = found.at,
            None => break,
        }
    }
    Diagnostic::new(format!("{} {}", complaint.field, complaint.message)).at(at)
}

/// The error of a body that does not fit its type.
pub(super) fn ron_error(error: &SpannedError, rendered: &Rendered, layered: &Layered) -> Diagnostic {
    use ron::Error as E;
    let place = |line: usize, column: usize| {
        let start: usize = rendered.text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
        let line_text = &rendered.text[start..];
        start + line_text.char_indices().nth(column.saturating_sub(1)).map_or(line_text.len(), |(i, _)| i)
    };
    let start = place(error.span.start.line, error.span.start.col);
    let end = place(error.span.end.line, error.span.end.col);
    let named = |name: &str| {
        // ron points past the unknown name.
        let before = rendered.text[..end.min(rendered.text.len())].rfind(name);
        before.and_then(|at| rendered.origin(at)).map(|s| s.until(s.end.min(s.start + name.len() as u32)))
    };
    let here = rendered
        .origin(start)
        .map(|s| s.until((s.start + (end.saturating_sub(start)).max(1) as u32).min(s.end.max(s.start + 1))));
    match &error.code {
        E::NoSuchStructField { expected, found, outer } => {
            let at = named(found).or(here).unwrap_or(layered.node.at);
            let of = outer.as_deref().map(|outer| written(outer, layered)).or_else(|| variant_at(&layered.node, at));
            let of = of.map_or(String::new(), |of| format!(" of {of}"));
            let extra = if of.is_empty() || layered.node.field(found).is_some() { &["run", "pin"][..] } else { &[] };
            let error = Diagnostic::new(format!("unknown field '{found}'{of}")).at(at);
            error.nearest(found, expected.iter().chain(extra).copied())
        }
        E::NoSuchEnumVariant { expected, found, outer } => {
            let of = outer.as_deref().map_or(String::new(), |o| format!(" for {}", lower(o)));
            let error = Diagnostic::new(format!("unknown value '{found}'{of}"))
                .at(named(found).or(here).unwrap_or(layered.node.at));
            error.nearest(found, expected.iter().copied())
        }
        E::MissingStructField { field, outer } => {
            let of = outer.as_deref().map_or(String::new(), |outer| format!(" of {}", written(outer, layered)));
            let kind = layered.node.name.unwrap_or_default();
            let part = outer.as_deref().filter(|outer| lower(outer) != kind).and(here);
            match part.and_then(|at| Some((at, field_at(&layered.node, at)?.0))) {
                // The field belongs to a part of the stage.
                Some((at, within)) => Diagnostic::new(format!("field '{field}'{of} is missing"))
                    .at(at)
                    .help(format!("add `{field}: …` to '{within}'")),
                None => Diagnostic::new(format!("field '{field}'{of} is missing"))
                    .at(layered.node.at)
                    .help(format!("add `{field}: …`, here or in `common`")),
            }
        }
        other => {
            let message = other.to_string();
            let message = message.strip_suffix('.').unwrap_or(&message).to_string();
            let at = here.unwrap_or(layered.node.at);
            let kind = layered.node.name.unwrap_or_default();
            if let (E::ExpectedIdentifier, Some((field, first))) = (other, without_variant(&rendered.text, start)) {
                let message = format!("field '{field}' has no variant here whose '{first}' could be set");
                let help =
                    format!("name the variant: VARIANT({first}: …); `caco explain {kind}` shows those of '{field}'");
                return Diagnostic::new(message).at(at).help(help);
            }
            let Some((field, value)) = field_at(&layered.node, at) else { return Diagnostic::new(message).at(at) };
            // What a type says of its own shape may end with a way out.
            if let Some((message, help)) = message.split_once("\nhelp: ") {
                return Diagnostic::new(format!("field '{field}': {message}")).at(at).help(help);
            }
            let (message, help) = other_shape(value, &message, &field, kind);
            Diagnostic::new(message).at(at).help(help)
        }
    }
}

/// Where a struct without a name takes the place of a variant, the name of its field and that of the first field in it.
/// A path of `--set` or of a sweep leaves one if no layer below says which variant it is.
fn without_variant(text: &str, at: usize) -> Option<(&str, &str)> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let before = text.get(..at)?.trim_end().strip_suffix(':')?.trim_end();
    let inside = text.get(at..)?.trim_start().strip_prefix('(')?.trim_start();
    let first = &inside[..inside.find(|c| !is_word(c))?];
    let field = &before[before.rfind(|c| !is_word(c)).map_or(0, |i| i + 1)..];
    (!first.is_empty() && inside[first.len()..].trim_start().starts_with(':')).then_some((field, first))
}

/// The innermost field at a location, with its dotted path.
fn field_at<'n, 'a>(node: &'n Node<'a>, at: Span) -> Option<(String, &'n Node<'a>)> {
    let holds = |of: Span| of.source() == at.source() && of.start <= at.start && at.start < of.end.max(of.start + 1);
    let inside = |name: &str, value: &'n Node<'a>| match field_at(value, at) {
        Some((path, value)) => Some((format!("{name}.{path}"), value)),
        None => holds(value.at).then(|| (name.to_string(), value)),
    };
    match &node.body {
        Body::Struct(fields) => fields.iter().find_map(|field| inside(field.key, &field.value)),
        Body::Map(entries) => {
            entries.iter().find_map(|(key, value)| inside(&key.string().unwrap_or_else(|| "…".into()), value))
        }
        Body::Tuple(items) | Body::List(items) => items.iter().find_map(|item| field_at(item, at)),
        Body::Scalar(_) | Body::For(_) => None,
    }
}

/// The error and the help for a value of the wrong shape.
fn other_shape(value: &Node, message: &str, field: &str, kind: &str) -> (String, String) {
    let explained = format!("`caco explain {kind}` shows the allowed values of '{field}'");
    let said = format!("field '{field}': {message}");
    let fraction = |text: &str| text.contains('.') && text.parse::<f64>().is_ok();
    match (message, value.string(), &value.body) {
        ("Expected identifier", Some(text), _) => {
            let word = text.chars().all(char::is_alphanumeric).then(|| format!("write {text} without quotes; "));
            let word = word.unwrap_or_default();
            (said, format!("{word}a file or folder is Path({text:?}), another stage Stage({text:?}); {explained}"))
        }
        ("Expected opening `[`", Some(text), _) => (said, format!("a list has brackets: [{text:?}]; {explained}")),
        ("Expected comma", _, Body::Scalar(text)) if fraction(text) => {
            (format!("field '{field}' is {text}, but must be a whole number"), explained)
        }
        _ => (said, explained),
    }
}

/// The name of a struct in pipeline files: that of a variant that is written out, of the stage's kind, or of a part.
fn written(name: &str, layered: &Layered) -> String {
    let is_variant = |field: &tree::Field| field.value.name == Some(name);
    let is_written = layered.node.fields().is_some_and(|fields| fields.iter().any(is_variant));
    if is_written { name.into() } else { lower(name) }
}

/// The innermost variant with fields at a location, within a stage.
fn variant_at(stage: &Node, at: Span) -> Option<String> {
    let holds = |node: &Node| node.at.source() == at.source() && node.at.start <= at.start && at.start < node.at.end;
    let inside =
        |node: &Node| holds(node).then(|| variant_at(node, at).or_else(|| node.name.map(String::from))).flatten();
    match &stage.body {
        Body::Struct(fields) => fields.iter().find_map(|field| inside(&field.value)),
        Body::Map(entries) => entries.iter().find_map(|(_, value)| inside(value)),
        Body::Tuple(items) | Body::List(items) => items.iter().find_map(inside),
        _ => None,
    }
}

/// Converts a Rust type's name to that in pipeline files: `LinearEval` → `linear_eval`.
fn lower(name: &str) -> String {
    let mut out = String::new();
    for (i, c) in name.chars().enumerate() {
        if c.is_uppercase() && i > 0 {
            out.push('_');
        }
        out.extend(c.to_lowercase());
    }
    out
}
