//! The text of a pipeline file as a tree with a location for every node, so that layers (variants, profiles, `--set`)
//! can be merged and every later error can still point at its line. Values are not interpreted here: `ron` parses them
//! from the text that [`Node::render`] assembles.

mod expand;
mod layout;
mod parse;
mod render;
mod template;
mod texts;

pub use expand::{Iteration, Tree};
pub use render::Rendered;
pub use texts::Texts;

use super::diagnostic::Diagnostic;
use parse::Parser;

/// A range of bytes in one of the [`Sources`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    origin: Origin,
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

/// The number of a source; or, with its highest bit set, that of an iteration, for only the pipeline file has loops. A
/// file of a hundred thousand stages has millions of nodes, each with a span.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Origin(u32);

const IN_ITERATION: u32 = 1 << 31;

impl Span {
    /// A range of bytes outside loops.
    pub fn new(source: u32, start: u32, end: u32) -> Self {
        Span { origin: Origin(source), start, end }
    }

    /// Which source it is in; 0 is the pipeline file.
    pub fn source(self) -> usize {
        if self.origin.0 & IN_ITERATION == 0 { self.origin.0 as usize } else { 0 }
    }

    /// Which iteration of a loop made it, counted from 1 in [`Tree::iterations`]; 0 outside loops.
    pub fn iteration(self) -> u32 {
        if self.origin.0 & IN_ITERATION == 0 { 0 } else { self.origin.0 & !IN_ITERATION }
    }

    /// The same range with another end.
    pub fn until(self, end: u32) -> Self {
        Span { end, ..self }
    }

    /// The same range, made by an iteration.
    fn in_iteration(self, iteration: u32) -> Self {
        Span { origin: Origin(iteration | IN_ITERATION), ..self }
    }
}

/// A source text: the pipeline file, or the value of a `--set`.
#[derive(Clone, Debug)]
pub struct Source {
    /// A path, or `--set PATH`.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// A value and its location.
#[derive(Clone, Debug)]
pub struct Node<'a> {
    /// Its location, including its name.
    pub at: Span,
    /// The name before the parenthesis, as in `index(…)`.
    pub name: Option<&'a str>,
    /// The value itself.
    pub body: Body<'a>,
    /// Whether it is unchanged, so that the source's own text can be used.
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
    /// A loop, as an element of a list or as the key of an entry, whose value is then `()`. A [`Tree`] has none left.
    For(Box<Loop<'a>>),
}

/// `for NAME in LIST {element, …}`, `for (KEY, VALUE) in MAP {key: value, …}`.
#[derive(Clone, Debug)]
pub struct Loop<'a> {
    /// The location of all before the body.
    at: Span,
    /// The variable for an entry's key. `None` if the loop goes over a list.
    key: Option<Variable<'a>>,
    /// The variable for an element, or for an entry's value.
    value: Variable<'a>,
    /// What it goes over.
    over: Node<'a>,
    /// A list or a map, like the one the loop is in.
    body: Node<'a>,
}

/// A variable where it gets its name.
#[derive(Clone, Copy, Debug)]
struct Variable<'a> {
    name: &'a str,
    at: Span,
}

/// The name of a variable that is not needed.
const NO_NAME: &str = "_";

/// A field of a struct.
#[derive(Clone, Debug)]
pub struct Field<'a> {
    /// Its name.
    pub key: &'a str,
    /// The location of the name.
    pub at: Span,
    /// Its value.
    pub value: Node<'a>,
}

/// Why a dotted path leads nowhere.
#[derive(Debug, PartialEq)]
pub enum Lack<'k> {
    /// A map has no entry of this name.
    Entry(&'k str),
    /// This field is asked of a value that has none, such as a number or a variant without fields.
    Fields(&'k str, String),
}

impl<'a> Node<'a> {
    /// Parses a whole text, which has no loops.
    pub fn parse(source: u32, text: &'a str) -> Result<Self, Diagnostic> {
        match Parser::whole(source, text)? {
            (node, None) => Ok(node),
            (_, Some(at)) => Err(Diagnostic::new("a loop can only be in a pipeline file").at(at)),
        }
    }

    /// The value of a struct's field.
    pub fn field(&self, key: &str) -> Option<&Node<'a>> {
        match &self.body {
            Body::Struct(fields) => fields.iter().find(|f| f.key == key).map(|f| &f.value),
            _ => None,
        }
    }

    /// The fields of a struct; `()` has none. `None` if this is something else.
    pub fn fields(&self) -> Option<&[Field<'a>]> {
        match &self.body {
            Body::Struct(fields) => Some(fields),
            Body::Tuple(items) if items.is_empty() => Some(&[]),
            _ => None,
        }
    }

    /// The same node with only the fields that `keep` accepts.
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

    /// Merges `over` into this node: structs and maps of the same name are merged, everything else is replaced.
    pub fn overlay(&self, over: &Node<'a>) -> Node<'a> {
        let same_name = over.name.is_none() || over.name == self.name;
        if !same_name {
            return over.clone();
        }
        let body = match (&self.body, &over.body) {
            (Body::Struct(_), Body::Tuple(items)) if items.is_empty() => self.body.clone(),
            (Body::Struct(below), Body::Struct(above)) => Body::Struct(overlay_fields(below, above)),
            (Body::Map(below), Body::Map(above)) => Body::Map(overlay_entries(below, above)),
            // `Some(…)` and a variant around one struct are no level of their own: a path goes through them.
            (Body::Tuple(below), above) if self.name.is_some() && below.len() == 1 && below[0].has_fields() => {
                let above = match above {
                    Body::Tuple(above) if above.len() == 1 && over.name.is_some() => &above[0],
                    Body::Struct(_) | Body::Map(_) if over.name.is_none() => over,
                    _ => return over.clone(),
                };
                Body::Tuple(vec![below[0].overlay(above)])
            }
            // A dotted path addresses fields and keys alike.
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

    /// The same node with `fields` as defaults for its own.
    pub fn under(&self, fields: Vec<Field<'a>>) -> Node<'a> {
        let below = Node { body: Body::Struct(fields), ..self.clone() };
        let empty = matches!(&self.body, Body::Tuple(items) if items.is_empty());
        let own = if empty { Node { body: Body::Struct(vec![]), ..self.clone() } } else { self.clone() };
        below.overlay(&own)
    }

    fn has_fields(&self) -> bool {
        matches!(self.body, Body::Struct(_) | Body::Map(_))
    }

    /// Why a dotted path leads nowhere, if it does not: only structs can get new names.
    pub fn lacks<'k>(&self, path: &[&'k str]) -> Option<Lack<'k>> {
        let (key, rest) = path.split_first()?;
        match &self.body {
            Body::Map(entries) => match entry(entries, key) {
                Some(at) => entries[at].1.lacks(rest),
                None => Some(Lack::Entry(key)),
            },
            Body::Struct(_) => self.field(key)?.lacks(rest),
            Body::Tuple(items) => match (self.name, items.as_slice()) {
                (Some(_), [inner]) if inner.has_fields() => inner.lacks(path),
                (_, []) => None,
                _ => Some(Lack::Fields(key, self.flat())),
            },
            Body::Scalar("None") => None,
            Body::Scalar(_) | Body::List(_) | Body::For(_) => Some(Lack::Fields(key, self.flat())),
        }
    }

    /// A chain of structs with one field each: `a.b` and a value become `(a: (b: value))`.
    pub fn nested(path: &[&'a str], value: Node<'a>) -> Node<'a> {
        path.iter().rev().fold(value, |inner, key| {
            let at = inner.at;
            let field = Field { key, at, value: inner };
            Node { at, name: None, body: Body::Struct(vec![field]), verbatim: false }
        })
    }

    /// The text for `ron`, without the outermost name, and the locations of its parts.
    pub fn render(&self, sources: &[Source]) -> Rendered {
        Rendered::nameless(self, sources)
    }

    /// All of its text, including the outermost name.
    pub fn text(&self, sources: &[Source]) -> String {
        Rendered::whole(self, sources).text
    }

    /// The location of the first scalar whose text is `wanted`.
    pub fn find_scalar(&self, wanted: &dyn Fn(&str) -> bool) -> Option<Span> {
        match &self.body {
            Body::Scalar(text) => wanted(text).then_some(self.at),
            Body::Struct(fields) => fields.iter().find_map(|f| f.value.find_scalar(wanted)),
            Body::Tuple(items) | Body::List(items) => items.iter().find_map(|n| n.find_scalar(wanted)),
            Body::Map(entries) => {
                entries.iter().find_map(|(k, v)| k.find_scalar(wanted).or_else(|| v.find_scalar(wanted)))
            }
            Body::For(_) => None,
        }
    }
}

/// The index of the entry whose key is this string.
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
        assert_eq!(merged("(v: Multi(size: 2, small: 1))", "(v: Multi(small: 3))"), "(v:Multi(size:2,small:3,),)");
        assert_eq!(merged("(v: Multi(size: 2))", "(v: Multi)"), "(v:Multi,)");
        assert_eq!(merged("(v: Some((a: 1, b: 2)))", "(v: (b: 3))"), "(v:Some((a:1,b:3,),),)");
        assert_eq!(merged("(v: Some((a: 1, b: 2)))", "(v: Some((b: 3)))"), "(v:Some((a:1,b:3,),),)");
        assert_eq!(merged("(v: Some((a: 1)))", "(v: None)"), "(v:None,)");
        assert_eq!(merged("(v: Path(\"x\"))", "(v: Path(\"y\"))"), "(v:Path(\"y\"),)");
        assert_eq!(merged("(a: 1)", "()"), "(a:1,)");
    }

    #[test]
    fn a_path_leads_into_structs_maps_and_variants_with_fields() {
        let text =
            "(n: 1, v: Multi(size: 2), u: Unit, o: Some((a: 1)), p: Path(\"x\"), m: {\"k\": 1}, none: None, e: ())";
        let node = Node::parse(0, text).unwrap();
        let lacks = |path: &'static str| node.lacks(&path.split('.').collect::<Vec<_>>());
        for path in ["n", "v.size", "v.new", "o.a", "o.new", "m.k", "none.a", "e.a", "new.a.b"] {
            assert_eq!(lacks(path), None, "{path}");
        }
        assert_eq!(lacks("m.x"), Some(Lack::Entry("x")));
        for (path, value) in [("n.x", "1"), ("v.size.x", "2"), ("u.x", "Unit"), ("p.x", "Path(\"x\")"), ("m.k.x", "1")]
        {
            assert_eq!(lacks(path), Some(Lack::Fields("x", value.into())), "{path}");
        }
    }

    #[test]
    fn an_origin_survives_merging() {
        let (below, above) = ("(a: 1, b: 2)", "  (b: 77)");
        let sources = sources(&[below, above]);
        let node = Node::parse(0, below).unwrap().overlay(&Node::parse(1, above).unwrap());
        let rendered = node.render(&sources);
        let origin = rendered.origin(rendered.text.find("77").unwrap()).unwrap();
        assert_eq!((origin.source(), origin.start), (1, 6));
        let origin = rendered.origin(rendered.text.find('1').unwrap()).unwrap();
        assert_eq!((origin.source(), origin.start), (0, 4));
    }

    #[test]
    fn strings_comments_and_names_are_parsed() {
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
