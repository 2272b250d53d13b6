//! Expands the loops of a pipeline file, and the values that its `let` names. What is left is a tree as if every entry
//! had been written by hand, so nothing after this knows of loops. Each node keeps its place in the file and the
//! iteration that made it, from which errors name the values of the loops around them.

use super::{
    super::diagnostic::Diagnostic,
    Body, Field, Loop, NO_NAME, Node, Span, Texts, Variable,
    parse::{LOOPS, MAX_DEPTH, Parser},
    template::{self, Piece, Unpaired, escaped, is_path, is_template, is_variable, pieces},
};
use std::{
    collections::{HashMap, hash_map},
    rc::Rc,
};

/// The field of a file that names values.
const LET: &str = "let";

/// The maximum number of values that loops make; more are certainly a mistake.
const MOST: usize = 1_000_000;

/// How much of a value is shown in an error, in characters.
const SHOWN: usize = 40;

/// One pass through the body of a loop.
#[derive(Clone, Debug)]
pub struct Iteration {
    /// The location of the loop, and the iteration that it is in itself.
    pub at: Span,
    /// Its variable and the value, as in `set = "food101"`.
    pub value: String,
}

/// A pipeline file without loops.
#[derive(Debug)]
pub struct Tree<'a> {
    /// The file.
    pub root: Node<'a>,
    /// The iterations that made it.
    pub iterations: Vec<Iteration>,
}

impl<'a> Tree<'a> {
    /// Parses a pipeline file and expands it.
    pub fn read(source: u32, text: &'a str, texts: &'a Texts) -> Result<Self, Diagnostic> {
        let (root, first_loop) = Parser::whole(source, text)?;
        if first_loop.is_none() && root.field(LET).is_none() {
            return Ok(Tree { root, iterations: vec![] });
        }
        let mut expansion =
            Expansion { texts, variables: HashMap::new(), has_let: false, iterations: vec![], current: 0, nodes: 0 };
        match expansion.file(root) {
            Ok(root) => Ok(Tree { root, iterations: expansion.iterations }),
            Err(error) => Err(error.in_iterations(&expansion.iterations)),
        }
    }
}

/// A variable and its value.
struct Known<'a> {
    value: Rc<Node<'a>>,
    at: Span,
}

struct Expansion<'a> {
    texts: &'a Texts,
    variables: HashMap<&'a str, Known<'a>>,
    /// Whether there are variables outside loops.
    has_let: bool,
    iterations: Vec<Iteration>,
    /// The iteration that is being expanded, counted from 1.
    current: u32,
    /// How many nodes were made.
    nodes: usize,
}

impl<'a> Expansion<'a> {
    /// Expands a file. A value of `let` can use those above it.
    fn file(&mut self, mut root: Node<'a>) -> Result<Node<'a>, Diagnostic> {
        if let Some(values) = root.field(LET) {
            self.has_let = true;
            let shape = || Diagnostic::new("`let` is a struct").at(values.at).help("write let: (name: value, …)");
            for Field { key, at, value } in values.fields().ok_or_else(shape)? {
                let value = self.node(value, 1)?;
                self.declare(Variable { name: key, at: *at }, value)?;
            }
            root = root.retain(|field| field != LET);
        }
        self.node(&root, 0)
    }

    fn node(&mut self, node: &Node<'a>, depth: u32) -> Result<Node<'a>, Diagnostic> {
        let at = self.here(node.at);
        self.count(at, depth)?;
        let mut verbatim = node.verbatim;
        let body = match &node.body {
            Body::Scalar(text) => return self.scalar(node, text, depth),
            Body::Struct(fields) => Body::Struct(self.fields(fields, depth, &mut verbatim)?),
            Body::Tuple(items) => Body::Tuple(self.elements(items, depth, &mut verbatim)?),
            Body::List(items) => Body::List(self.elements(items, depth, &mut verbatim)?),
            Body::Map(entries) => Body::Map(self.entries(entries, depth, &mut verbatim)?),
            Body::For(_) => unreachable!("the parser puts loops into lists and maps only"),
        };
        Ok(Node { at, name: node.name, body, verbatim })
    }

    fn fields(&mut self, fields: &[Field<'a>], depth: u32, verbatim: &mut bool) -> Result<Vec<Field<'a>>, Diagnostic> {
        let mut expanded = Vec::with_capacity(fields.len());
        for field in fields {
            let value = self.node(&field.value, depth + 1)?;
            *verbatim &= value.verbatim;
            expanded.push(Field { key: field.key, at: self.here(field.at), value });
        }
        Ok(expanded)
    }

    fn elements(&mut self, items: &[Node<'a>], depth: u32, verbatim: &mut bool) -> Result<Vec<Node<'a>>, Diagnostic> {
        let mut expanded = Vec::with_capacity(items.len());
        for item in items {
            if let Body::For(repeated) = &item.body {
                *verbatim = false;
                let Body::List(body) = &repeated.body.body else { unreachable!("a loop in a list repeats elements") };
                self.each(repeated, depth, |this| {
                    expanded.extend(this.elements(body, depth, &mut false)?);
                    Ok(())
                })?;
            } else {
                let item = self.node(item, depth + 1)?;
                *verbatim &= item.verbatim;
                expanded.push(item);
            }
        }
        Ok(expanded)
    }

    fn entries(&mut self, entries: &Entries<'a>, depth: u32, verbatim: &mut bool) -> Result<Entries<'a>, Diagnostic> {
        let mut expanded = Vec::with_capacity(entries.len());
        let mut has_loop = false;
        for (key, value) in entries {
            if let Body::For(repeated) = &key.body {
                has_loop = true;
                let Body::Map(body) = &repeated.body.body else { unreachable!("a loop in a map repeats entries") };
                self.each(repeated, depth, |this| {
                    expanded.extend(this.entries(body, depth, &mut false)?);
                    Ok(())
                })?;
            } else {
                let (key, value) = (self.node(key, depth + 1)?, self.node(value, depth + 1)?);
                *verbatim &= key.verbatim && value.verbatim;
                expanded.push((key, value));
            }
        }
        *verbatim &= !has_loop;
        // Keys as written are compared by the parser.
        if !*verbatim {
            no_key_twice(&expanded)?;
        }
        Ok(expanded)
    }

    /// Calls `body` once for every element or entry that a loop goes over, with its variables declared.
    fn each(
        &mut self,
        repeated: &Loop<'a>,
        depth: u32,
        mut body: impl FnMut(&mut Self) -> Result<(), Diagnostic>,
    ) -> Result<(), Diagnostic> {
        let names: Vec<Variable> =
            repeated.key.iter().chain([&repeated.value]).filter(|v| v.name != NO_NAME).copied().collect();
        if names.is_empty() {
            let error = Diagnostic::new("a loop that names no value repeats the same").at(self.here(repeated.at));
            return Err(error.help(LOOPS));
        }
        if let Some(unused) = names.iter().find(|variable| !mentions(&repeated.body, variable.name)) {
            let error = Diagnostic::new(format!("the loop does not use '{}'", unused.name)).at(self.here(unused.at));
            let twice = repeated.key.is_some() && names.len() == 2;
            let help = format!("a string uses it as {{{}}}, a value as {}", unused.name, unused.name);
            let other = "write _ for what is not needed: (key, _) or (_, value)";
            return Err(if twice { error.help(help).help(other) } else { error.help(help) });
        }
        for (key, value) in self.items(repeated, depth)? {
            let value_of = |variable: &Variable, value| format!("{} = {value}", variable.name);
            let shown = match (&key, &repeated.key) {
                (Some(key), Some(name)) if name.name != NO_NAME => value_of(name, self.shown(key)),
                (Some(key), _) => self.shown(key),
                (None, _) => value_of(&repeated.value, self.shown(&value)),
            };
            let outer = self.current;
            self.iterations.push(Iteration { at: self.here(repeated.at), value: shown });
            self.current = self.iterations.len() as u32;
            if let (Some(variable), Some(key)) = (repeated.key, key) {
                self.declare(variable, key)?;
            }
            self.declare(repeated.value, value)?;
            body(self)?;
            for variable in &names {
                self.variables.remove(variable.name);
            }
            self.current = outer;
        }
        Ok(())
    }

    /// What a loop goes over: elements, or entries with their keys.
    fn items(&mut self, repeated: &Loop<'a>, depth: u32) -> Result<Vec<(Option<Node<'a>>, Node<'a>)>, Diagnostic> {
        let over = self.node(&repeated.over, depth + 1)?;
        let value = repeated.value.name;
        match (over.body, &repeated.key) {
            (Body::List(items), None) if over.name.is_none() => {
                Ok(items.into_iter().map(|item| (None, item)).collect())
            }
            (Body::Map(entries), Some(_)) if over.name.is_none() => {
                Ok(entries.into_iter().map(|(key, value)| (Some(key), value)).collect())
            }
            (Body::List(_), Some(key)) => {
                let message = "a list has no keys, but the loop names two variables";
                let error = Diagnostic::new(message).at(self.here(key.at));
                Err(error.help(format!("write `for {value} in …`")))
            }
            (Body::Map(_), None) => {
                let message = "a map has keys and values, but the loop names one variable";
                let error = Diagnostic::new(message).at(self.here(repeated.value.at));
                Err(error.help(format!("write `for (key, {value}) in …`, with _ for what is not needed")))
            }
            (body, _) => {
                let found = self.shown(&Node { body, ..over });
                let error = Diagnostic::new(format!("a loop goes over a list or a map, not over {found}"));
                Err(error.at(over.at).help(LOOPS))
            }
        }
    }

    fn declare(&mut self, variable: Variable<'a>, value: Node<'a>) -> Result<(), Diagnostic> {
        let Variable { name, at } = variable;
        if name == NO_NAME {
            return Ok(());
        }
        if !is_variable(name) {
            let error = Diagnostic::new(format!("'{name}' cannot be the name of a variable")).at(at);
            return Err(error.help("a name begins with a small letter and is not a word of RON, such as true"));
        }
        match self.variables.entry(name) {
            hash_map::Entry::Occupied(known) => {
                let error = Diagnostic::new(format!("there is already a variable '{name}'")).at(at);
                Err(error.note(known.get().at, "it gets its value here").help("give one of them another name"))
            }
            hash_map::Entry::Vacant(free) => {
                free.insert(Known { value: Rc::new(value), at });
                Ok(())
            }
        }
    }

    /// A scalar: a variable's value, a string with its placeholders replaced, or as it is.
    fn scalar(&mut self, node: &Node<'a>, text: &'a str, depth: u32) -> Result<Node<'a>, Diagnostic> {
        let at = self.here(node.at);
        let as_it_is = Node { at, ..node.clone() };
        if self.current == 0 && !self.has_let {
            return Ok(as_it_is);
        }
        if is_path(text) {
            let value = self.value(text, at, &format!("a string needs quotes: \"{text}\""))?;
            let copy = self.copy(&value, depth)?;
            return Ok(Node { at, verbatim: false, ..copy });
        }
        if !is_template(text) {
            return Ok(as_it_is);
        }
        let filled = self.filled(text, at)?;
        Ok(if filled == text {
            as_it_is
        } else {
            Node { body: Body::Scalar(self.texts.keep(filled)), verbatim: false, ..as_it_is }
        })
    }

    /// A string literal with its placeholders replaced.
    fn filled(&self, literal: &str, at: Span) -> Result<String, Diagnostic> {
        let place = |offset: usize, length: usize| {
            let start = at.start + offset as u32;
            Span { start, end: start + length as u32, ..at }
        };
        let parts = pieces(literal).map_err(|Unpaired(offset, brace)| {
            let error = Diagnostic::new(format!("'{brace}' has no counterpart in this string"));
            error.at(place(offset, 1)).help(BRACES)
        })?;
        let mut filled = String::with_capacity(literal.len() + 16);
        for part in parts {
            match part {
                Piece::Text(text) => filled.push_str(text),
                Piece::Placeholder(offset, path) => {
                    let text = self.placeholder(path, place(offset, path.len()))?;
                    filled.push_str(&if literal.starts_with('r') { text } else { escaped(&text) });
                }
            }
        }
        Ok(if literal.starts_with('r') { requoted(literal, filled) } else { filled })
    }

    /// The text of a placeholder's value.
    fn placeholder(&self, path: &str, at: Span) -> Result<String, Diagnostic> {
        if !is_path(path) {
            return Err(Diagnostic::new(format!("'{{{path}}}' names no variable")).at(at).help(BRACES));
        }
        let value = self.value(path, at, BRACES)?;
        if let (Some(text), None) = (value.string(), value.name) {
            return Ok(text);
        }
        match (&value.body, value.name) {
            (Body::Scalar(text), None) => {
                Ok(ron::from_str::<char>(text).map_or_else(|_| (*text).into(), |c| c.to_string()))
            }
            _ => {
                let what = self.shown(&value);
                let error = Diagnostic::new(format!("'{path}' is {what}, which cannot be part of a string")).at(at);
                let field = value.fields().and_then(|fields| fields.first()).map_or("name", |field| field.key);
                Err(error.help(format!("use a number, a string or a word in it, such as {{{path}.{field}}}")))
            }
        }
    }

    /// The value of a variable, or of a field of it. `help` is what else could be meant than a variable.
    fn value(&self, path: &str, at: Span, help: &str) -> Result<Rc<Node<'a>>, Diagnostic> {
        let mut parts = path.split('.');
        let name = parts.next().unwrap_or_default();
        let Some(known) = self.variables.get(name) else {
            let error = Diagnostic::new(format!("no variable is called '{name}'")).at(at);
            let error = error.nearest(name, self.variables.keys().copied());
            return Err(error.help(help));
        };
        let mut value = known.value.clone();
        let mut path = name.to_string();
        for part in parts {
            let Some(inner) = inner(&value, part) else {
                let error = Diagnostic::new(format!("'{path}' has no '{part}'; it is {}", self.shown(&value))).at(at);
                let names = inner_names(&value);
                let error = error.nearest(part, names.iter().map(String::as_str));
                return Err(error.help(format!("the whole value is {path}")));
            };
            value = Rc::new(inner.clone());
            path = format!("{path}.{part}");
        }
        Ok(value)
    }

    /// A value once more. Its parts keep their places: there they are written.
    fn copy(&mut self, value: &Node<'a>, depth: u32) -> Result<Node<'a>, Diagnostic> {
        let at = self.here(value.at);
        self.count(at, depth)?;
        let mut copies = |items: &[Node<'a>]| {
            items.iter().map(|item| self.copy(item, depth + 1)).collect::<Result<Vec<_>, Diagnostic>>()
        };
        let body = match &value.body {
            Body::Tuple(items) => Body::Tuple(copies(items)?),
            Body::List(items) => Body::List(copies(items)?),
            Body::Struct(fields) => {
                let copy = |field: &Field<'a>| {
                    let at = self.here(field.at);
                    Ok(Field { key: field.key, at, value: self.copy(&field.value, depth + 1)? })
                };
                Body::Struct(fields.iter().map(copy).collect::<Result<_, Diagnostic>>()?)
            }
            Body::Map(entries) => {
                let copy = |(key, value): &(Node<'a>, Node<'a>)| {
                    Ok((self.copy(key, depth + 1)?, self.copy(value, depth + 1)?))
                };
                Body::Map(entries.iter().map(copy).collect::<Result<_, Diagnostic>>()?)
            }
            scalar => scalar.clone(),
        };
        Ok(Node { at, name: value.name, body, verbatim: value.verbatim })
    }

    /// The same place, in the current iteration.
    fn here(&self, at: Span) -> Span {
        if self.current == 0 { at } else { at.in_iteration(self.current) }
    }

    /// Counts a node, so that a file of a few lines does not fill the memory.
    fn count(&mut self, at: Span, depth: u32) -> Result<(), Diagnostic> {
        self.nodes += 1;
        if self.nodes > MOST {
            let error = Diagnostic::new(format!("the file's loops and variables make more than {MOST} values"));
            return Err(error.at(at).help("shorten a loop, or write a sweep"));
        }
        if depth > MAX_DEPTH {
            return Err(Diagnostic::new(format!("brackets are nested more than {MAX_DEPTH} deep")).at(at));
        }
        Ok(())
    }

    /// A value for a message: as it is written, shortened.
    fn shown(&self, value: &Node<'a>) -> String {
        let text = match &value.body {
            Body::Scalar(text) if value.name.is_none() => (*text).to_string(),
            _ => value.flat(),
        };
        match text.char_indices().nth(SHOWN) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text,
        }
    }
}

type Entries<'a> = Vec<(Node<'a>, Node<'a>)>;

const BRACES: &str = "a placeholder is {NAME} or {NAME.FIELD}; for a brace, write {{ or }}";

/// A raw string as an ordinary one where a value has its closing quotes, or else as it is.
fn requoted(literal: &str, filled: String) -> String {
    let hashes = literal.bytes().skip(1).take_while(|b| *b == b'#').count();
    let inside = &filled[hashes + 2..filled.len() - hashes - 1];
    let close = format!("\"{}", "#".repeat(hashes));
    if inside.contains(&close) { format!("\"{}\"", escaped(inside)) } else { filled }
}

/// The value of a struct's field, or of a map's entry.
fn inner<'n, 'a>(value: &'n Node<'a>, name: &str) -> Option<&'n Node<'a>> {
    match &value.body {
        Body::Map(entries) => entries.iter().find(|(key, _)| key.string().as_deref() == Some(name)).map(|(_, v)| v),
        _ => value.field(name),
    }
}

fn inner_names(value: &Node) -> Vec<String> {
    match &value.body {
        Body::Struct(fields) => fields.iter().map(|field| field.key.to_string()).collect(),
        Body::Map(entries) => entries.iter().filter_map(|(key, _)| key.string()).collect(),
        _ => vec![],
    }
}

/// Whether a part of a loop's body uses a variable.
fn mentions(node: &Node, name: &str) -> bool {
    let is_it = |path: &str| path.split('.').next() == Some(name);
    match &node.body {
        Body::Scalar(text) if is_template(text) => {
            // A string that is wrong is reported where it is expanded.
            let pieces = template::pieces(text);
            pieces.is_err()
                || pieces.into_iter().flatten().any(|piece| matches!(piece, Piece::Placeholder(_, path) if is_it(path)))
        }
        Body::Scalar(text) => is_it(text),
        Body::Struct(fields) => fields.iter().any(|field| mentions(&field.value, name)),
        Body::Tuple(items) | Body::List(items) => items.iter().any(|item| mentions(item, name)),
        Body::Map(entries) => entries.iter().any(|(key, value)| mentions(key, name) || mentions(value, name)),
        Body::For(repeated) => mentions(&repeated.over, name) || mentions(&repeated.body, name),
    }
}

/// Rejects keys that became equal.
fn no_key_twice(entries: &Entries) -> Result<(), Diagnostic> {
    let mut seen: HashMap<String, Span> = HashMap::with_capacity(entries.len());
    for (key, _) in entries {
        let Body::Scalar(text) = key.body else { continue };
        let name = key.string().map_or_else(|| text.to_string(), |name| format!("'{name}'"));
        match seen.entry(name) {
            hash_map::Entry::Occupied(first) => {
                let error = Diagnostic::new(format!("{} appears twice", first.key())).at(key.at);
                let error = error.note(*first.get(), "first here");
                return Err(error.help("a name has to contain what differs between iterations, such as {name}"));
            }
            hash_map::Entry::Vacant(free) => _ = free.insert(key.at),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
