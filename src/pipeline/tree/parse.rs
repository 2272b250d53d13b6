//! Parses text into a tree. The grammar is RON's; values are skipped, not interpreted.

use super::{super::diagnostic::Diagnostic, Body, Field, Loop, Node, Span, Variable};
use std::collections::HashSet;

/// The maximum nesting depth, which prevents a stack overflow.
pub(super) const MAX_DEPTH: u32 = 100;

const FOR: &str = "for";

/// The two forms of loops.
pub(super) const LOOPS: &str = "write `for VALUE in LIST { … }`, or `for (KEY, VALUE) in MAP { … }`";

/// A text, and the current position.
pub(super) struct Parser<'a> {
    source: u32,
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    depth: u32,
    first_loop: Option<Span>,
    /// Whether the last item is a loop, after whose brace the comma may be left out.
    after_loop: bool,
}

impl<'a> Parser<'a> {
    /// Parses the whole text as one node. Returns the location of its first loop too.
    pub(super) fn whole(source: u32, text: &'a str) -> Result<(Node<'a>, Option<Span>), Diagnostic> {
        if u32::try_from(text.len()).is_err() {
            return Err(Diagnostic::new("the file is larger than 4 GiB"));
        }
        let bytes = text.as_bytes();
        let mut parser = Parser { source, text, bytes, at: 0, depth: 0, first_loop: None, after_loop: false };
        parser.extensions()?;
        let node = parser.value()?;
        parser.space()?;
        if parser.at < parser.bytes.len() {
            return Err(parser.error("text after the end of the value"));
        }
        Ok((node, parser.first_loop))
    }

    fn error(&self, message: impl Into<String>) -> Diagnostic {
        let start = self.at.min(self.text.len()) as u32;
        Diagnostic::new(message).at(Span::new(self.source, start, start + 1))
    }

    fn span(&self, start: usize) -> Span {
        Span::new(self.source, start as u32, self.at as u32)
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn starts_with(&self, text: &str) -> bool {
        self.bytes[self.at..].starts_with(text.as_bytes())
    }

    /// Skips white space and comments. Block comments nest.
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

    /// Skips `#![enable(…)]` lines at the top: the extensions are enabled anyway.
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
            None => Err(self.error("the text ends, but a value was expected")),
            Some(b'(') => self.parenthesis().map(|body| node(self, None, body)),
            Some(b'[') => self.items(b']', Self::element).map(|items| node(self, None, Body::List(items))),
            Some(b'{') => self.map().map(|map| node(self, None, map)),
            Some(_) => {
                let scalar = self.scalar()?;
                if scalar == FOR {
                    return Err(self.misplaced(start));
                }
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
        let Some(key) = self.identifier() else { return Err(self.error("expected a field name")) };
        let at = self.span(start);
        self.space()?;
        if self.peek() != Some(b':') {
            let missing = self.error(format!("':' is missing after '{key}'"));
            return Err(if key == FOR { self.misplaced(start) } else { missing });
        }
        self.at += 1;
        Ok(Field { key, at, value: self.value()? })
    }

    fn map(&mut self) -> Result<Body<'a>, Diagnostic> {
        let entries = self.items(b'}', Self::entry)?;
        no_key_twice(&entries)?;
        Ok(Body::Map(entries))
    }

    fn element(&mut self) -> Result<Node<'a>, Diagnostic> {
        if self.at_loop() {
            self.a_loop(|parser| parser.items(b'}', Self::element).map(Body::List))
        } else {
            self.value()
        }
    }

    fn entry(&mut self) -> Result<(Node<'a>, Node<'a>), Diagnostic> {
        if self.at_loop() {
            let repeated = self.a_loop(Self::map)?;
            let nothing = Node { at: repeated.at, name: None, body: Body::Tuple(vec![]), verbatim: false };
            return Ok((repeated, nothing));
        }
        let key = self.value()?;
        self.space()?;
        if self.peek() != Some(b':') {
            return Err(self.error("':' is missing between key and value"));
        }
        self.at += 1;
        Ok((key, self.value()?))
    }

    /// Whether the word `for` follows.
    fn at_loop(&self) -> bool {
        let after = || self.bytes.get(self.at + FOR.len());
        self.starts_with(FOR) && after().is_some_and(|b| b.is_ascii_whitespace() || *b == b'(')
    }

    /// Parses a loop. Its body is in braces, and holds what the collection holds that the loop is in.
    fn a_loop(&mut self, body: impl FnOnce(&mut Self) -> Result<Body<'a>, Diagnostic>) -> Result<Node<'a>, Diagnostic> {
        let start = self.at;
        self.at += FOR.len();
        let (key, value) = self.pattern()?;
        self.space()?;
        if self.identifier() != Some("in") {
            return Err(self.error(format!("'in' is missing after '{}'", value.name)).help(LOOPS));
        }
        let over = self.value()?;
        let at = self.span(start);
        self.space()?;
        if self.peek() != Some(b'{') {
            return Err(self.error("the body of a loop is in braces").help(LOOPS));
        }
        let opening = self.at;
        let body = body(self)?;
        let body = Node { at: self.span(opening), name: None, body, verbatim: true };
        self.first_loop.get_or_insert(at);
        self.after_loop = true;
        let body = Body::For(Box::new(Loop { at, key, value, over, body }));
        Ok(Node { at: self.span(start), name: None, body, verbatim: false })
    }

    /// Parses the variables of a loop: `value`, or `(key, value)`.
    fn pattern(&mut self) -> Result<(Option<Variable<'a>>, Variable<'a>), Diagnostic> {
        self.space()?;
        if self.peek() != Some(b'(') {
            return Ok((None, self.variable()?));
        }
        let start = self.at;
        let variables = self.items(b')', Self::variable)?;
        match variables[..] {
            [key, value] => Ok((Some(key), value)),
            _ => {
                Err(Diagnostic::new("a loop has one variable, or two in parentheses").at(self.span(start)).help(LOOPS))
            }
        }
    }

    fn variable(&mut self) -> Result<Variable<'a>, Diagnostic> {
        self.space()?;
        let start = self.at;
        match self.identifier() {
            Some(name) => Ok(Variable { name, at: self.span(start) }),
            None => Err(self.error("the name of a variable is missing").help(LOOPS)),
        }
    }

    /// A loop, where only one value can be.
    fn misplaced(&self, start: usize) -> Diagnostic {
        let at = Span { end: (start + FOR.len()) as u32, ..self.span(start) };
        let message = "a loop is an element of a list or an entry of a map; here is one value";
        Diagnostic::new(message).at(at).help("put it in brackets for a list, in braces for a map: [for x in xs { … }]")
    }

    /// Parses the parts between a bracket and its closing bracket, separated by commas.
    fn items<T>(
        &mut self,
        close: u8,
        mut item: impl FnMut(&mut Self) -> Result<T, Diagnostic>,
    ) -> Result<Vec<T>, Diagnostic> {
        let opening = self.error(format!("this bracket is not closed by '{}'", close as char));
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error(format!("brackets are nested more than {MAX_DEPTH} deep")));
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
            let after_loop = std::mem::take(&mut self.after_loop);
            self.space()?;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(byte) if byte == close => break,
                None => return Err(opening),
                Some(_) if after_loop => {}
                Some(_) => return Err(self.error(format!("expected ',' or '{}'", close as char))),
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
                    return Err(self.error(format!("expected a value, found '{found}'")));
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

/// Rejects duplicate keys: the second entry would silently win.
fn no_key_twice(entries: &[(Node, Node)]) -> Result<(), Diagnostic> {
    let mut seen = HashSet::new();
    let mut twice = entries.iter().filter_map(|(key, _)| match key.body {
        Body::Scalar(text) => (!seen.insert(text)).then_some((text, key.at)),
        _ => None,
    });
    twice.next().map_or(Ok(()), |(text, at)| Err(Diagnostic::new(format!("{text} appears twice")).at(at)))
}
