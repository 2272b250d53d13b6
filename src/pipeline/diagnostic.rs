//! An error or a warning in a pipeline file, with its location and help.

use super::tree::{Iteration, Source, Span};
use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use std::fmt;

/// An error or a warning that can point at a location.
#[derive(Clone, Debug, PartialEq)]
pub struct Diagnostic {
    /// Whether it is only a warning.
    pub is_warning: bool,
    /// What is wrong.
    pub message: String,
    /// The location.
    pub span: Option<Span>,
    /// The label beside the caret.
    pub label: String,
    /// Other locations, and what is there.
    pub notes: Vec<(Span, String)>,
    /// Help, one line each.
    pub help: Vec<String>,
}

impl Diagnostic {
    /// An error without a location.
    pub fn new(message: impl Into<String>) -> Self {
        let message = message.into();
        Diagnostic { is_warning: false, message, span: None, label: String::new(), notes: vec![], help: vec![] }
    }

    /// A warning without a location.
    pub fn warning(message: impl Into<String>) -> Self {
        Diagnostic { is_warning: true, ..Self::new(message) }
    }

    /// The same error, at `span`.
    pub fn at(mut self, span: Span) -> Self {
        self.span = Some(span);
        self
    }

    /// The same error with a label beside the caret.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// The same error with another location.
    pub fn note(mut self, at: Span, what: impl Into<String>) -> Self {
        self.notes.push((at, what.into()));
        self
    }

    /// The same error with the loops around each of its locations, from the innermost outwards, and their values there.
    pub fn in_iterations(mut self, iterations: &[Iteration]) -> Self {
        let places: Vec<Span> = self.span.into_iter().chain(self.notes.iter().map(|(at, _)| *at)).collect();
        for (place, which) in places.into_iter().zip(["this", "the first"]) {
            let mut number = place.iteration();
            while let Some(Iteration { at, value }) = (number as usize).checked_sub(1).and_then(|i| iterations.get(i)) {
                self.notes.push((*at, format!("in {which} iteration: {value}")));
                number = at.iteration();
            }
        }
        self
    }

    /// The same error with a line of help.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }

    /// Suggests the nearest known name, and lists all known names if they are few.
    pub fn nearest<'n>(self, wanted: &str, known: impl Iterator<Item = &'n str> + Clone) -> Self {
        let with_nearest = match nearest(wanted, known.clone()) {
            Some(name) => self.help(format!("did you mean '{name}'?")),
            None => self,
        };
        let mut all: Vec<&str> = known.collect();
        all.sort_unstable();
        all.dedup();
        if all.is_empty() || all.len() > 24 {
            with_nearest
        } else {
            with_nearest.help(format!("known here: {}", all.join(", ")))
        }
    }

    /// Renders it with its line and a caret.
    pub fn render(&self, sources: &[Source], colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let level = if self.is_warning { Level::WARNING } else { Level::ERROR };
        let mut group = level.primary_title(self.message.as_str()).elements(Vec::<annotate_snippets::Element>::new());
        if let Some((span, source)) = self.span.and_then(|s| Some((s, sources.get(s.source())?))) {
            let marked = |kind: AnnotationKind, at: Span, label| {
                let end = (at.end as usize).min(source.text.len());
                let start = (at.start as usize).min(end);
                kind.span(start..first_line(&source.text, start, end)).label(label)
            };
            let notes = self.notes.iter().filter(|(at, _)| at.source() == span.source());
            let notes = notes.map(|(at, what)| marked(AnnotationKind::Context, *at, what.as_str()));
            let place = marked(AnnotationKind::Primary, span, self.label.as_str());
            let snippet = Snippet::source(source.text.as_str()).path(source.name.as_str());
            group = group.element(snippet.annotation(place).annotations(notes));
        }
        let group = self.help.iter().fold(group, |group, help| group.element(Level::HELP.message(help.as_str())));
        renderer.render(&[group])
    }
}

/// The end of the marked text, at most the end of its first line: a caret under a whole block is not useful.
fn first_line(text: &str, start: usize, end: usize) -> usize {
    text.get(start..end).and_then(|marked| marked.find('\n')).map_or(end, |length| start + length)
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.message)?;
        self.notes.iter().try_for_each(|(_, what)| write!(f, "; {what}"))?;
        self.help.iter().try_for_each(|help| write!(f, "; {help}"))
    }
}

/// The known name most similar to `wanted`, if one is close enough to be a typo.
pub fn nearest<'n>(wanted: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let far = (wanted.chars().count() / 3).max(2);
    known
        .map(|name| (strsim::damerau_levenshtein(&wanted.to_lowercase(), &name.to_lowercase()), name))
        .filter(|(distance, _)| *distance <= far)
        .min()
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typos_are_matched_to_the_nearest_name() {
        let known = ["epochs", "batch", "temperature"];
        assert_eq!(nearest("epoch", known.into_iter()), Some("epochs"));
        assert_eq!(nearest("temprature", known.into_iter()), Some("temperature"));
        assert_eq!(nearest("widgets", known.into_iter()), None);
    }

    #[test]
    fn a_place_is_shown_with_its_line() {
        let text = "(\n    epoch: 3,\n)";
        let sources = [Source { name: "p.ron".into(), text: text.into() }];
        let error =
            Diagnostic::new("unknown field 'epoch'").at(Span::new(0, 6, 11)).nearest("epoch", ["epochs"].into_iter());
        insta::assert_snapshot!(error.render(&sources, false));
    }
}
