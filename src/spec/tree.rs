//! The text of a pipeline file as a tree with a place for every node, so that layers (variants, profiles, `--set`) can
//! be laid over one another and every later error can still point at the line it comes from. Values are not understood
//! here: `ron` reads them, from the text that [`Node::render`] puts together.

use super::diagnostic::Diagnostic;

/// A range of bytes in one of the [`Sources`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Which source; 0 is the pipeline file.
    pub source: u32,
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

/// A text that was read: the pipeline file, or the value of a `--set`.
#[derive(Clone, Debug)]
pub struct Source {
    /// A path, or `--set PATH`.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub struct Node<'a> {
    /// All of it, name included.
    pub at: Span,
    /// The name before the parenthesis, as in `index(…)`.
    pub name: Option<&'a str>,
    /// What follows.
    pub body: Body<'a>,
    /// Whether it is as the source has it, so that the source's own text can be handed on.
    verbatim: bool,
}

/// The shapes of RON.
#[derive(Clone, Debug)]
pub enum Body<'a> {
    /// Number, string, character, or a lone identifier.
    Scalar(&'a str),
    /// `(field: value, …)`
    Struct(Vec<Field<'a>>),
    /// `(value, …)`, and `()`.
    Tuple(Vec<Node<'a>>),
    /// `[value, …]`
    List(Vec<Node<'a>>),
    /// `{key: value, …}`
    Map(Vec<(Node<'a>, Node<'a>)>),
}

/// A field of a struct.
#[derive(Clone, Debug)]
pub struct Field<'a> {
    /// Its name.
    pub key: &'a str,
    /// Where the name stands.
    pub at: Span,
    /// Its value.
    pub value: Node<'a>,
}

impl<'a> Node<'a> {
    /// Reads one whole text.
    pub fn parse(source: u32, text: &'a str) -> Result<Self, Diagnostic> {
        if u32::try_from(text.len()).is_err() {
            return Err(Diagnostic::new("the file is larger than 4 GiB"));
        }
        let mut parser = Parser { source, text, bytes: text.as_bytes(), at: 0, depth: 0 };
        parser.extensions()?;
        let node = parser.value()?;
        parser.space()?;
        if parser.at < parser.bytes.len() {
            return Err(parser.error("text after the end of the value"));
        }
        Ok(node)
    }

    /// The value of a struct's field.
    pub fn field(&self, key: &str) -> Option<&Node<'a>> {
        match &self.body {
            Body::Struct(fields) => fields.iter().find(|f| f.key == key).map(|f| &f.value),
            _ => None,
        }
    }

    /// The fields of a struct; `()` has none. None where this is something else.
    pub fn fields(&self) -> Option<&[Field<'a>]> {
        match &self.body {
            Body::Struct(fields) => Some(fields),
            Body::Tuple(items) if items.is_empty() => Some(&[]),
            _ => None,
        }
    }

    /// The same node without the fields that `keep` refuses.
    pub fn retain(mut self, keep: impl Fn(&str) -> bool) -> Self {
        if let Body::Struct(fields) = &mut self.body {
            let before = fields.len();
            fields.retain(|f| keep(f.key));
            self.verbatim &= fields.len() == before;
        }
        self
    }

    /// The same node under another name, or none.
    pub fn named(mut self, name: Option<&'a str>) -> Self {
        self.verbatim &= self.name == name;
        self.name = name;
        self
    }

    /// The text between the quotes of a plain string.
    pub fn string(&self) -> Option<String> {
        match &self.body {
            Body::Scalar(text) if self.name.is_none() && text.ends_with(['"', '#']) => match text.strip_prefix('"') {
                Some(rest) if !rest.contains('\\') => Some(rest.trim_end_matches('"').into()),
                _ => ron::from_str(text).ok(),
            },
            _ => None,
        }
    }

    /// Lays `over` on top of this: structs and maps of the same name are merged, all else is replaced.
    pub fn overlay(&self, over: &Node<'a>) -> Node<'a> {
        let same_name = over.name.is_none() || over.name == self.name;
        if !same_name {
            return over.clone();
        }
        let body = match (&self.body, &over.body) {
            (Body::Struct(_), Body::Tuple(items)) if items.is_empty() => self.body.clone(),
            (Body::Struct(below), Body::Struct(above)) => Body::Struct(overlay_fields(below, above)),
            (Body::Map(below), Body::Map(above)) => Body::Map(overlay_entries(below, above)),
            // A dotted path means fields and keys alike.
            (Body::Map(below), Body::Struct(above)) if above.iter().all(|f| entry(below, f.key).is_some()) => {
                let mut merged = below.clone();
                for field in above {
                    let at = entry(below, field.key).expect("every key was found");
                    merged[at].1 = merged[at].1.overlay(&field.value);
                }
                Body::Map(merged)
            }
            _ => return over.clone(),
        };
        Node { at: self.at, name: self.name, body, verbatim: false }
    }

    /// The same node with `fields` laid under its own.
    pub fn under(&self, fields: Vec<Field<'a>>) -> Node<'a> {
        let below = Node { body: Body::Struct(fields), ..self.clone() };
        let empty = matches!(&self.body, Body::Tuple(items) if items.is_empty());
        let own = if empty { Node { body: Body::Struct(vec![]), ..self.clone() } } else { self.clone() };
        below.overlay(&own)
    }

    /// The map on a dotted path that has no entry for the path's next part: only a struct can be given new names.
    pub fn lacks<'k>(&self, path: &[&'k str]) -> Option<&'k str> {
        let (key, rest) = path.split_first()?;
        match &self.body {
            Body::Map(entries) => match entry(entries, key) {
                Some(at) => entries[at].1.lacks(rest),
                None => Some(key),
            },
            _ => self.field(key)?.lacks(rest),
        }
    }

    /// A struct with this one field chain: `a.b` and a value make `(a: (b: value))`.
    pub fn nested(path: &[&'a str], value: Node<'a>) -> Node<'a> {
        path.iter().rev().fold(value, |inner, key| {
            let at = inner.at;
            let field = Field { key, at, value: inner };
            Node { at, name: None, body: Body::Struct(vec![field]), verbatim: false }
        })
    }

    /// The text that `ron` reads, without the outermost name, and where its parts come from.
    pub fn render(&self, sources: &[Source]) -> Rendered {
        let mut rendered = Rendered::default();
        if self.verbatim && self.name.is_none() {
            rendered.verbatim(self.at, sources);
        } else {
            rendered.body(self, sources);
        }
        rendered
    }

    /// All of its text, the outermost name too.
    pub fn text(&self, sources: &[Source]) -> String {
        let mut rendered = Rendered::default();
        rendered.node(self, sources);
        rendered.text
    }

    /// The places of every scalar whose text is `wanted`.
    pub fn find_scalar(&self, wanted: &dyn Fn(&str) -> bool) -> Option<Span> {
        match &self.body {
            Body::Scalar(text) => wanted(text).then_some(self.at),
            Body::Struct(fields) => fields.iter().find_map(|f| f.value.find_scalar(wanted)),
            Body::Tuple(items) | Body::List(items) => items.iter().find_map(|n| n.find_scalar(wanted)),
            Body::Map(entries) => {
                entries.iter().find_map(|(k, v)| k.find_scalar(wanted).or_else(|| v.find_scalar(wanted)))
            }
        }
    }
}

/// The place of the entry whose key is this string.
fn entry(entries: &[(Node, Node)], key: &str) -> Option<usize> {
    entries.iter().position(|(k, _)| k.string().as_deref() == Some(key))
}

fn overlay_fields<'a>(below: &[Field<'a>], above: &[Field<'a>]) -> Vec<Field<'a>> {
    let mut merged = below.to_vec();
    for field in above {
        match merged.iter_mut().find(|f| f.key == field.key) {
            Some(known) => {
                known.value = known.value.overlay(&field.value);
                known.at = field.at;
            }
            None => merged.push(field.clone()),
        }
    }
    merged
}

fn overlay_entries<'a>(below: &[(Node<'a>, Node<'a>)], above: &[(Node<'a>, Node<'a>)]) -> Vec<(Node<'a>, Node<'a>)> {
    let text = |key: &Node<'a>| match key.body {
        Body::Scalar(text) => Some(text),
        _ => None,
    };
    let mut merged = below.to_vec();
    for (key, value) in above {
        match merged.iter_mut().find(|(k, _)| text(k).is_some() && text(k) == text(key)) {
            Some((_, known)) => *known = known.overlay(value),
            None => merged.push((key.clone(), value.clone())),
        }
    }
    merged
}

/// Text put together from several places.
#[derive(Clone, Debug, Default)]
pub struct Rendered {
    /// The text.
    pub text: String,
    /// (offset in `text`, where it was copied from), rising.
    pieces: Vec<(u32, Span)>,
}

impl Rendered {
    /// Where the byte at `offset` of the text was written.
    pub fn origin(&self, offset: usize) -> Option<Span> {
        let last = self.pieces.partition_point(|(start, _)| *start as usize <= offset).checked_sub(1)?;
        let (start, span) = self.pieces[last];
        let within = (offset - start as usize) as u32;
        let length = span.end - span.start;
        // Past the piece: a bracket or comma of ours. Its neighbour on the left is the best place to point at.
        let at = span.start + within.min(length.saturating_sub(1));
        Some(Span { source: span.source, start: at, end: span.end.max(at + 1) })
    }

    fn verbatim(&mut self, at: Span, sources: &[Source]) {
        self.pieces.push((self.text.len() as u32, at));
        self.text.push_str(&sources[at.source as usize].text[at.start as usize..at.end as usize]);
    }

    fn node(&mut self, node: &Node, sources: &[Source]) {
        if node.verbatim {
            return self.verbatim(node.at, sources);
        }
        if let Some(name) = node.name {
            self.pieces.push((self.text.len() as u32, node.at));
            self.text.push_str(name);
        }
        self.body(node, sources);
    }

    fn body(&mut self, node: &Node, sources: &[Source]) {
        match &node.body {
            Body::Scalar(text) => {
                self.pieces.push((self.text.len() as u32, node.at));
                self.text.push_str(text);
            }
            Body::Struct(fields) => self.list('(', ')', fields, |out, field| {
                out.pieces.push((out.text.len() as u32, field.at));
                out.text.push_str(field.key);
                out.text.push(':');
                out.node(&field.value, sources);
            }),
            Body::Tuple(items) => self.list('(', ')', items, |out, item| out.node(item, sources)),
            Body::List(items) => self.list('[', ']', items, |out, item| out.node(item, sources)),
            Body::Map(entries) => self.list('{', '}', entries, |out, (key, value)| {
                out.node(key, sources);
                out.text.push(':');
                out.node(value, sources);
            }),
        }
    }

    fn list<T>(&mut self, open: char, close: char, items: &[T], mut each: impl FnMut(&mut Self, &T)) {
        self.text.push(open);
        for item in items {
            each(self, item);
            self.text.push(',');
        }
        self.text.push(close);
    }
}

/// Deeper nesting than this is refused instead of overflowing the stack.
const MAX_DEPTH: u32 = 100;

struct Parser<'a> {
    source: u32,
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    depth: u32,
}

impl<'a> Parser<'a> {
    fn error(&self, message: impl Into<String>) -> Diagnostic {
        let start = self.at.min(self.text.len()) as u32;
        Diagnostic::new(message).at(Span { source: self.source, start, end: start + 1 })
    }

    fn span(&self, start: usize) -> Span {
        Span { source: self.source, start: start as u32, end: self.at as u32 }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn starts_with(&self, text: &str) -> bool {
        self.bytes[self.at..].starts_with(text.as_bytes())
    }

    /// Passes over white space and comments; block comments nest.
    fn space(&mut self) -> Result<(), Diagnostic> {
        loop {
            match self.peek() {
                Some(b' ' | b'\n' | b'\t' | b'\r') => self.at += 1,
                Some(b'/') if self.starts_with("//") => {
                    let rest = &self.bytes[self.at..];
                    self.at += rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
                }
                Some(b'/') if self.starts_with("/*") => self.block_comment()?,
                // A byte-order mark and other Unicode spaces.
                Some(byte) if byte >= 0x80 => {
                    let next = self.text[self.at..].chars().next().filter(|c| c.is_whitespace() || *c == '\u{feff}');
                    let Some(space) = next else { return Ok(()) };
                    self.at += space.len_utf8();
                }
                _ => return Ok(()),
            }
        }
    }

    fn block_comment(&mut self) -> Result<(), Diagnostic> {
        let open = self.error("this comment is not closed");
        let mut depth = 0;
        loop {
            if self.starts_with("/*") {
                depth += 1;
                self.at += 2;
            } else if self.starts_with("*/") {
                depth -= 1;
                self.at += 2;
                if depth == 0 {
                    return Ok(());
                }
            } else if self.at < self.bytes.len() {
                self.at += 1;
            } else {
                return Err(open);
            }
        }
    }

    /// `#![enable(…)]` lines at the top: read over, since what they allow is allowed anyway.
    fn extensions(&mut self) -> Result<(), Diagnostic> {
        self.space()?;
        while self.starts_with("#![") {
            let Some(end) = self.text[self.at..].find(']') else { return Err(self.error("']' is missing")) };
            self.at += end + 1;
            self.space()?;
        }
        Ok(())
    }

    fn value(&mut self) -> Result<Node<'a>, Diagnostic> {
        self.space()?;
        let start = self.at;
        let node = |parser: &Self, name, body| Node { at: parser.span(start), name, body, verbatim: true };
        match self.peek() {
            None => Err(self.error("the text ends where a value should stand")),
            Some(b'(') => self.parenthesis().map(|body| node(self, None, body)),
            Some(b'[') => self.items(b']', Self::value).map(|items| node(self, None, Body::List(items))),
            Some(b'{') => self.items(b'}', Self::entry).map(|entries| node(self, None, Body::Map(entries))),
            Some(_) => {
                let scalar = self.scalar()?;
                let after_scalar = self.at;
                self.space()?;
                let is_name = scalar.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
                if is_name && self.peek() == Some(b'(') {
                    let body = self.parenthesis()?;
                    return Ok(node(self, Some(scalar), body));
                }
                self.at = after_scalar;
                Ok(node(self, None, Body::Scalar(scalar)))
            }
        }
    }

    fn parenthesis(&mut self) -> Result<Body<'a>, Diagnostic> {
        if self.at_field()? {
            return self.items(b')', Self::struct_field).map(Body::Struct);
        }
        self.items(b')', Self::value).map(Body::Tuple)
    }

    /// Whether `identifier :` follows the opening parenthesis.
    fn at_field(&mut self) -> Result<bool, Diagnostic> {
        let start = self.at;
        self.at += 1;
        self.space()?;
        let named = self.identifier().is_some();
        self.space()?;
        let field = named && self.peek() == Some(b':');
        self.at = start;
        Ok(field)
    }

    fn struct_field(&mut self) -> Result<Field<'a>, Diagnostic> {
        let start = self.at;
        let Some(key) = self.identifier() else { return Err(self.error("a field name should stand here")) };
        let at = self.span(start);
        self.space()?;
        if self.peek() != Some(b':') {
            return Err(self.error(format!("':' is missing after '{key}'")));
        }
        self.at += 1;
        Ok(Field { key, at, value: self.value()? })
    }

    fn entry(&mut self) -> Result<(Node<'a>, Node<'a>), Diagnostic> {
        let key = self.value()?;
        self.space()?;
        if self.peek() != Some(b':') {
            return Err(self.error("':' is missing between key and value"));
        }
        self.at += 1;
        Ok((key, self.value()?))
    }

    /// The parts between a bracket and its closing one, separated by commas.
    fn items<T>(
        &mut self,
        close: u8,
        mut item: impl FnMut(&mut Self) -> Result<T, Diagnostic>,
    ) -> Result<Vec<T>, Diagnostic> {
        let opening = self.error(format!("this bracket is not closed by '{}'", close as char));
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error(format!("more than {MAX_DEPTH} brackets deep")));
        }
        self.at += 1;
        let mut items = vec![];
        loop {
            self.space()?;
            match self.peek() {
                None => return Err(opening),
                Some(byte) if byte == close => break,
                Some(_) => items.push(item(self)?),
            }
            self.space()?;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(byte) if byte == close => break,
                None => return Err(opening),
                Some(_) => return Err(self.error(format!("',' or '{}' should stand here", close as char))),
            }
        }
        self.at += 1;
        self.depth -= 1;
        Ok(items)
    }

    fn identifier(&mut self) -> Option<&'a str> {
        let rest = &self.bytes[self.at..];
        let first = rest.first().filter(|b| b.is_ascii_alphabetic() || **b == b'_')?;
        let _ = first;
        let length = rest.iter().position(|b| !(b.is_ascii_alphanumeric() || *b == b'_')).unwrap_or(rest.len());
        let name = &self.text[self.at..self.at + length];
        self.at += length;
        Some(name)
    }

    fn scalar(&mut self) -> Result<&'a str, Diagnostic> {
        let start = self.at;
        let rest = &self.bytes[start..];
        let prefix = rest.iter().take_while(|b| matches!(b, b'b' | b'r')).count();
        match rest.get(prefix) {
            Some(b'"') if rest[..prefix].contains(&b'r') => self.raw_string(start + prefix, 0)?,
            Some(b'#') if rest[..prefix].contains(&b'r') => {
                let hashes = rest[prefix..].iter().take_while(|b| **b == b'#').count();
                self.raw_string(start + prefix + hashes, hashes)?;
            }
            Some(b'"') if prefix <= 1 => self.quoted(start + prefix, b'"')?,
            Some(b'\'') if prefix == 0 => self.quoted(start, b'\'')?,
            _ => {
                let ends = |b: &u8| b.is_ascii_whitespace() || b",:()[]{}\"/".contains(b);
                let length = rest.iter().position(ends).unwrap_or(rest.len());
                if length == 0 {
                    let found = self.text[start..].chars().next().unwrap_or(' ');
                    return Err(self.error(format!("a value should stand here, not '{found}'")));
                }
                self.at = start + length;
            }
        }
        Ok(&self.text[start..self.at])
    }

    fn quoted(&mut self, open: usize, quote: u8) -> Result<(), Diagnostic> {
        let mut at = open + 1;
        while let Some(byte) = self.bytes.get(at) {
            match byte {
                b'\\' => at += 1,
                byte if *byte == quote => {
                    self.at = at + 1;
                    return Ok(());
                }
                _ => {}
            }
            at += 1;
        }
        Err(self.error("this string is not closed"))
    }

    fn raw_string(&mut self, open: usize, hashes: usize) -> Result<(), Diagnostic> {
        let close = format!("\"{}", "#".repeat(hashes));
        let inside = self.text.get(open + 1..).filter(|_| self.bytes.get(open) == Some(&b'"'));
        let Some(length) = inside.and_then(|text| text.find(&close)) else {
            return Err(self.error("this string is not closed"));
        };
        self.at = open + 1 + length + close.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sources(texts: &[&str]) -> Vec<Source> {
        texts.iter().map(|t| Source { name: String::new(), text: (*t).into() }).collect()
    }

    fn merged(below: &str, above: &str) -> String {
        let sources = sources(&[below, above]);
        let (a, b) = (Node::parse(0, below).unwrap(), Node::parse(1, above).unwrap());
        a.overlay(&b).render(&sources).text
    }

    #[test]
    fn fields_and_entries_are_merged_and_all_else_replaced() {
        assert_eq!(merged("(a: 1, b: (c: 2, d: 3))", "(b: (d: 4), e: [5])"), "(a:1,b:(c:2,d:4,),e:[5],)");
        assert_eq!(merged(r#"{"x": 1}"#, r#"{"x": 2, "y": 3}"#), r#"{"x":2,"y":3,}"#);
        assert_eq!(merged("(v: Single(size: 2))", "(v: Multi(small: 3))"), "(v:Multi(small: 3),)");
        assert_eq!(merged("(v: Single(size: 2))", "(v: (size: 3))"), "(v:Single(size:3,),)");
        assert_eq!(merged("(a: 1)", "()"), "(a:1,)");
    }

    #[test]
    fn an_origin_survives_merging() {
        let (below, above) = ("(a: 1, b: 2)", "  (b: 77)");
        let sources = sources(&[below, above]);
        let node = Node::parse(0, below).unwrap().overlay(&Node::parse(1, above).unwrap());
        let rendered = node.render(&sources);
        let origin = rendered.origin(rendered.text.find("77").unwrap()).unwrap();
        assert_eq!((origin.source, origin.start), (1, 6));
        let origin = rendered.origin(rendered.text.find('1').unwrap()).unwrap();
        assert_eq!((origin.source, origin.start), (0, 4));
    }

    #[test]
    fn strings_comments_and_names_are_passed_over() {
        let text = "/* a /* b */ c */ (s: \"x\\\")\", r: r#\"y\")\"#, c: '\\'', // )\n n: Some(-1.5e-3), e: Auto,)";
        let node = Node::parse(0, text).unwrap();
        assert_eq!(node.fields().unwrap().len(), 5);
        assert_eq!(node.field("s").unwrap().string().unwrap(), "x\")");
        assert_eq!(node.field("r").unwrap().string().unwrap(), "y\")");
        assert_eq!(node.field("n").unwrap().name, Some("Some"));
    }

    #[test]
    fn a_broken_text_says_where() {
        for (text, at) in
            [("(a: 1", 0), ("(a 1)", 3), ("[1 2]", 3), ("(a: \"x)", 4), ("{1: }", 4), ("", 0), ("1 2", 2), ("/* x", 0)]
        {
            let error = Node::parse(0, text).expect_err(text);
            assert_eq!(error.span.unwrap().start, at, "{text}: {}", error.message);
        }
        assert!(Node::parse(0, &"(".repeat(100_000)).is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in r#"[\(\)\[\]\{\}:,"'rb#/\\\* a1é\n]{0,40}"#) {
            let _ = Node::parse(0, &text);
        }

        #[test]
        fn what_ron_prints_is_read_back(value in prop::collection::btree_map("[a-z]{1,4}", prop::collection::vec(any::<(i32, String)>(), 0..4), 0..4)) {
            let text = ron::to_string(&value).unwrap();
            let sources = sources(&[&text]);
            let node = Node::parse(0, &text).unwrap();
            let forced = node.overlay(&Node::parse(0, "{}").unwrap());
            prop_assert_eq!(&ron::from_str::<std::collections::BTreeMap<String, Vec<(i32, String)>>>(&forced.render(&sources).text).unwrap(), &value);
        }
    }
}
