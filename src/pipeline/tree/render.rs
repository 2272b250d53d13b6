//! Renders a tree back to text, with the location that each piece comes from.

use super::{Body, Node, Source, Span};

/// Text assembled from several sources.
#[derive(Clone, Debug, Default)]
pub struct Rendered {
    /// The text.
    pub text: String,
    /// Pairs of an offset in `text` and the location it was copied from, ascending.
    pieces: Vec<(u32, Span)>,
}

impl Rendered {
    /// Renders a node without its own name.
    pub(super) fn nameless(node: &Node, sources: &[Source]) -> Rendered {
        let mut rendered = Rendered::default();
        if node.verbatim && node.name.is_none() {
            rendered.verbatim(node.at, sources);
        } else {
            rendered.body(node, sources);
        }
        rendered
    }

    /// Renders a node with its name.
    pub(super) fn whole(node: &Node, sources: &[Source]) -> Rendered {
        let mut rendered = Rendered::default();
        rendered.node(node, sources);
        rendered
    }

    /// The location that the byte at `offset` of the text comes from.
    pub fn origin(&self, offset: usize) -> Option<Span> {
        let last = self.pieces.partition_point(|(start, _)| *start as usize <= offset).checked_sub(1)?;
        let (start, span) = self.pieces[last];
        let within = (offset - start as usize) as u32;
        let length = span.end - span.start;
        // Past the piece: a bracket or comma that was added. Its left neighbour is the best location.
        let at = span.start + within.min(length.saturating_sub(1));
        Some(Span { start: at, end: span.end.max(at + 1), ..span })
    }

    fn verbatim(&mut self, at: Span, sources: &[Source]) {
        self.pieces.push((self.text.len() as u32, at));
        self.text.push_str(&sources[at.source()].text[at.start as usize..at.end as usize]);
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
            Body::For(_) => {}
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
