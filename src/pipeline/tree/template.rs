//! Strings with placeholders: `{set}` and `{set.folder}` are a variable and a field of one, `{{` and `}}` are braces.
//! What is between `${` and `}` is a variable of the environment and stays; placeholders can be inside.

/// A part of a string literal.
#[derive(Debug, PartialEq)]
pub(super) enum Piece<'t> {
    /// Text as it is written in the literal.
    Text(&'t str),
    /// A variable with its fields, as in `set.folder`, and its offset in the literal.
    Placeholder(usize, &'t str),
}

/// A brace that is neither part of a placeholder nor doubled, with its offset.
#[derive(Debug, PartialEq)]
pub(super) struct Unpaired(pub(super) usize, pub(super) char);

/// Whether a scalar is a string that can have placeholders.
pub(super) fn is_template(literal: &str) -> bool {
    literal.starts_with(['"', 'r']) && literal.ends_with(['"', '#']) && literal.contains(['{', '}'])
}

/// The pieces of a string literal, including its quotes.
pub(super) fn pieces(literal: &str) -> Result<Vec<Piece<'_>>, Unpaired> {
    let escapes = literal.starts_with('"');
    let bytes = literal.as_bytes();
    let (mut pieces, mut from, mut at, mut in_environment) = (vec![], 0, 0, 0);
    while at < bytes.len() {
        match (bytes[at], bytes.get(at + 1)) {
            (b'\\', next) if escapes => {
                // The braces of `\u{…}` are not ours.
                let braces = if next == Some(&b'u') { literal[at..].find('}').unwrap_or(1) } else { 1 };
                at += braces;
            }
            (b'$', Some(b'{')) => {
                in_environment += 1;
                at += 1;
            }
            (b'}', _) if in_environment > 0 => in_environment -= 1,
            (b'{', Some(b'{')) | (b'}', Some(b'}')) => {
                pieces.push(Piece::Text(&literal[from..=at]));
                at += 1;
                from = at + 1;
            }
            (b'{', _) => {
                let inside = &literal[at + 1..];
                let end = inside.find(['{', '}', '"']).filter(|end| inside.as_bytes()[*end] == b'}');
                let length = end.ok_or(Unpaired(at, '{'))?;
                pieces.push(Piece::Text(&literal[from..at]));
                pieces.push(Piece::Placeholder(at + 1, &inside[..length]));
                at += length + 1;
                from = at + 1;
            }
            (b'}', _) => return Err(Unpaired(at, '}')),
            _ => {}
        }
        at += 1;
    }
    pieces.push(Piece::Text(&literal[from..]));
    Ok(pieces)
}

/// The text as it is written between double quotes.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}

/// Whether this is a variable with or without fields: `set`, `set.folder`. Variables begin with a small letter, which
/// values that are words do not, and so are not numbers, `true`, `false`, `inf` or `nan`.
pub(super) fn is_path(text: &str) -> bool {
    let mut parts = text.split('.');
    parts.next().is_some_and(is_variable) && parts.all(is_word)
}

/// Whether this can be the name of a variable.
pub(super) fn is_variable(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && is_word(text)
        && !text.contains('-')
        && !matches!(text, "true" | "false" | "inf" | "nan" | "for" | "in" | "_")
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::{Piece::*, *};

    #[test]
    fn placeholders_braces_and_the_environment_are_distinguished() {
        let cases: [(&str, &[Piece]); 6] = [
            (r#""a{x}b""#, &[Text("\"a"), Placeholder(3, "x"), Text("b\"")]),
            (r#""{x.y}""#, &[Text("\""), Placeholder(2, "x.y"), Text("\"")]),
            (r#""{{x}}""#, &[Text("\"{"), Text("x}"), Text("\"")]),
            (r#""${VAR}/{x}""#, &[Text("\"${VAR}/"), Placeholder(9, "x"), Text("\"")]),
            (r#""${VAR:-{x}}/""#, &[Text("\"${VAR:-"), Placeholder(9, "x"), Text("}/\"")]),
            (r#""\u{1f600}\\{x}""#, &[Text(r#""\u{1f600}\\"#), Placeholder(13, "x"), Text("\"")]),
        ];
        for (literal, expected) in cases {
            assert_eq!(pieces(literal).unwrap(), expected, "{literal}");
        }
        assert_eq!(pieces(r#""a{x""#), Err(Unpaired(2, '{')));
        assert_eq!(pieces(r#""a}x""#), Err(Unpaired(2, '}')));
        assert_eq!(pieces(r##"r#"\{x}"#"##).unwrap().len(), 3, "a raw string has no escapes");
    }

    #[test]
    fn words_that_are_values_are_no_variables() {
        assert!(["x", "set.folder", "a1.B.c-d", "_x"].into_iter().all(is_path));
        assert!(
            !["Train", "1.5", "true", "nan", "in", "x.", ".x", "", "_", "\"x\"", "r\"x\""].into_iter().any(is_path)
        );
    }

    #[test]
    fn an_escaped_text_is_read_back() {
        let text = "a\"\\\n\t\u{1}τ";
        assert_eq!(ron::from_str::<String>(&format!("\"{}\"", escaped(text))).unwrap(), text);
    }
}
