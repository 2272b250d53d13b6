//! Prints a tree for people: a value on one line where it fits, or else each of its parts on a line of its own. The
//! result depends on the values only, so printing what was printed changes nothing.

use super::{Body, Node};

/// The maximum length of a line.
const WIDTH: usize = 120;

const INDENT: usize = 4;

impl Node<'_> {
    /// The value on one line.
    pub fn flat(&self) -> String {
        let mut out = String::new();
        flat(self, &mut out);
        out
    }

    /// The value on as many lines as it needs.
    pub fn laid_out(&self) -> String {
        let mut out = String::new();
        lay_out(self, 0, 0, &mut out);
        out.push('\n');
        out
    }
}

/// A part of a value: what is before it, and the part.
type Part<'n, 'a> = (String, &'n Node<'a>);

/// The brackets around the parts of a value, and the parts.
fn parts<'n, 'a>(node: &'n Node<'a>) -> Option<(char, char, Vec<Part<'n, 'a>>)> {
    let plain = |items: &'n [Node<'a>]| items.iter().map(|item| (String::new(), item)).collect();
    match &node.body {
        Body::Scalar(_) | Body::For(_) => None,
        Body::Struct(fields) => {
            Some(('(', ')', fields.iter().map(|field| (format!("{}: ", field.key), &field.value)).collect()))
        }
        Body::Tuple(items) => Some(('(', ')', plain(items))),
        Body::List(items) => Some(('[', ']', plain(items))),
        Body::Map(entries) => {
            Some(('{', '}', entries.iter().map(|(key, value)| (format!("{}: ", key.flat()), value)).collect()))
        }
    }
}

fn flat(node: &Node, out: &mut String) {
    out.push_str(node.name.unwrap_or_default());
    let Some((open, close, parts)) = parts(node) else {
        let Body::Scalar(text) = node.body else { return };
        return out.push_str(text);
    };
    out.push(open);
    for (i, (before, part)) in parts.iter().enumerate() {
        out.push_str(if i == 0 { "" } else { ", " });
        out.push_str(before);
        flat(part, out);
    }
    out.push(close);
}

/// `column` is where the value begins, `indent` where its line does. A comma can follow.
fn lay_out(node: &Node, indent: usize, column: usize, out: &mut String) {
    let line = node.flat();
    let fits = column + line.chars().count() < WIDTH && !line.contains('\n');
    // The file itself is never on one line, and neither are its maps, such as `stages`.
    let is_part = indent == 0 || (indent == INDENT && matches!(node.body, Body::Map(_)));
    let Some((open, close, parts)) = parts(node).filter(|(_, _, parts)| !parts.is_empty() && (!fits || is_part)) else {
        return out.push_str(&line);
    };
    out.push_str(node.name.unwrap_or_default());
    out.push(open);
    for (before, part) in parts {
        let indent = indent + INDENT;
        out.push('\n');
        out.extend(std::iter::repeat_n(' ', indent));
        out.push_str(&before);
        lay_out(part, indent, indent + before.chars().count(), out);
        out.push(',');
    }
    out.push('\n');
    out.extend(std::iter::repeat_n(' ', indent));
    out.push(close);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_are_broken_and_printing_again_changes_nothing() {
        let long = "x".repeat(70);
        let text = format!(
            "(a:1,/* gone */ b: {{\"k\": k(x: [1,2,],), \"l\": [\"{long}\",\"{long}\"]}}, c: (), d: Some(3), f: {{1: [{{}}, {{2: 3}}]}}, e: r#\"1\n2\"#)"
        );
        let printed = Node::parse(0, &text).unwrap().laid_out();
        let expected = format!(
            "(\n    a: 1,\n    b: {{\n        \"k\": k(x: [1, 2]),\n        \"l\": [\n            \"{long}\",\n            \"{long}\",\n        ],\n    }},\n    c: (),\n    d: Some(3),\n    f: {{\n        1: [{{}}, {{2: 3}}],\n    }},\n    e: r#\"1\n2\"#,\n)\n"
        );
        assert_eq!(printed, expected);
        assert_eq!(Node::parse(0, &printed).unwrap().laid_out(), printed);
    }
}
