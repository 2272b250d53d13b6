//! Sweeps: one variant for every combination of the axes' values.
//!
//! The numbers of ranges and random draws are first generated as text ([`numbers`]), as further sources beside the
//! pipeline file. They are then treated like values in the file, and errors can point at them.

use super::{
    diagnostic::Diagnostic,
    kind::options,
    shape::{fields, known_fields, named_entries, names},
    tree::{Body, Node, Source, Span},
};
use caco_measure::rng::Rng;
use evalexpr::{ContextWithMutableVariables, HashMapContext, Value, build_operator_tree};
use serde::Deserialize;
use std::collections::{HashMap, HashSet};

/// A resolved sweep, with the variants that it generated.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sweep {
    /// Its name.
    pub name: String,
    /// Its axes, in order. Seeds are the last one.
    pub axes: Vec<String>,
    /// Whether the last axis is seeds.
    pub seeds: bool,
    /// The stages of each point.
    pub stages: Vec<String>,
    /// Its points, in order.
    pub points: Vec<Point>,
}

/// A point of a sweep.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Point {
    /// The name of the variant: stage `s` of this point is called `s/<variant>`.
    pub variant: String,
    /// Its value on each axis, as written.
    pub values: Vec<String>,
}

/// A sweep as written in the file.
pub struct Written<'a> {
    /// Its name.
    pub name: String,
    /// Its location.
    pub at: Span,
    /// The variant it extends.
    pub extends: Option<(String, Span)>,
    /// The stages of each point. `None` means all in `each_variant`.
    pub stages: Option<Vec<(String, Span)>>,
    axes: Vec<Axis<'a>>,
    zip: Vec<Vec<String>>,
    filter: Option<(String, Span)>,
    seeds: bool,
}

struct Axis<'a> {
    name: String,
    at: Span,
    set: Vec<(&'a str, Span)>,
    values: Vec<(String, Node<'a>)>,
    random: bool,
}

/// A point as layers: the variant, and the value for each path.
pub struct Layers<'a> {
    /// The point.
    pub point: Point,
    /// Dotted paths (`stage.field`) and their values.
    pub set: Vec<(&'a str, Span, Node<'a>)>,
}

/// The maximum number of points; more are certainly a mistake.
const MOST: usize = 1_000_000;

const FIELDS: [&str; 8] = ["extends", "stages", "axes", "zip", "draws", "seed", "filter", "seeds"];
const AXIS: [&str; 5] = ["set", "values", "range", "log_range", "random"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Range {
    from: f64,
    to: f64,
    step: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LogRange {
    from: f64,
    to: f64,
    count: u32,
}

#[derive(Deserialize)]
enum Random {
    Uniform(f64, f64),
    LogUniform(f64, f64),
    Integers(i64, i64),
}

/// The fields of `seeds` besides `set`, which is read like that of an axis.
#[derive(Deserialize)]
struct Seeds {
    count: u32,
    #[serde(default)]
    first: u32,
}

/// The name of the source with an axis's numbers.
fn source_name(sweep: &str, axis: &str) -> String {
    format!("sweep '{sweep}', axis '{axis}'")
}

/// Generates the numbers of all axes that the file does not list, as additional sources.
pub fn numbers(sweeps: &[(String, Node)], sources: &[Source]) -> Result<Vec<Source>, Diagnostic> {
    let mut numbers = vec![];
    for (sweep, node) in sweeps {
        let draws = typed::<u32>(node, "draws", sources)?;
        let seed = typed::<u64>(node, "seed", sources)?.unwrap_or_default();
        for (axis, body) in axes_of(node)? {
            let list = if body.field("range").is_some() {
                Some(range(&body, sources)?)
            } else if body.field("log_range").is_some() {
                Some(log_range(&body, sources)?)
            } else if let Some(at) = body.field("random") {
                let draws = draws.filter(|n| *n > 0).ok_or_else(|| {
                    Diagnostic::new(format!(
                        "sweep '{sweep}' draws '{axis}' at random, but does not set the number of draws"
                    ))
                    .at(at.at)
                    .help("add it, such as `draws: 20`")
                })?;
                Some(random(&body, sources, &axis, seed, draws)?)
            } else {
                None
            };
            if let Some(list) = list {
                numbers.push(Source { name: source_name(sweep, &axis), text: format!("[{}]", list.join(", ")) });
            }
        }
        if let Some(seeds) = typed::<Seeds>(node, "seeds", sources)? {
            few(seeds.count, node.field("seeds").map_or(node.at, |seeds| seeds.at))?;
            let list: Vec<String> =
                (seeds.first..seeds.first.saturating_add(seeds.count)).map(|s| s.to_string()).collect();
            numbers.push(Source { name: source_name(sweep, SEED), text: format!("[{}]", list.join(", ")) });
        }
    }
    Ok(numbers)
}

/// The name of the axis of seeds.
const SEED: &str = "seed";

fn range(body: &Node, sources: &[Source]) -> Result<Vec<String>, Diagnostic> {
    let Range { from, to, step } = typed(body, "range", sources)?.expect("the field is there");
    let at = body.field("range").expect("the field is there").at;
    let count = ((to - from) / step + 1e-9).floor() + 1.0;
    if !(step != 0.0 && count >= 1.0 && count <= MOST as f64) {
        return Err(
            Diagnostic::new(format!("the range from {from} to {to} by {step} has no values, or too many")).at(at)
        );
    }
    let whole = [from, to, step].iter().all(|x| x.fract() == 0.0);
    let value =
        |i: u32| if whole { format!("{}", from + step * f64::from(i)) } else { number(from + step * f64::from(i), 12) };
    Ok((0..count as u32).map(value).collect())
}

fn log_range(body: &Node, sources: &[Source]) -> Result<Vec<String>, Diagnostic> {
    let LogRange { from, to, count } = typed(body, "log_range", sources)?.expect("the field is there");
    let at = body.field("log_range").expect("the field is there").at;
    if !(from > 0.0 && to > 0.0 && to.is_finite() && count >= 2) {
        return Err(Diagnostic::new("a log range needs two positive numbers and a count of at least 2").at(at));
    }
    few(count, at)?;
    let share = |i: u32| f64::from(i) / f64::from(count - 1);
    let values: Vec<String> = (0..count).map(|i| number(from * (to / from).powf(share(i)), 6)).collect();
    // Between whole numbers, and whole itself: as the file has them, for a program that takes no 16.0.
    let ends = ["from", "to"].map(|end| body.field("log_range").and_then(|range| range.field(end)));
    let is_whole = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || b"_+".contains(&byte));
    let written = ends.iter().flatten().all(|end| is_whole(&end.text(sources)));
    match values.iter().map(|value| value.strip_suffix(".0").map(String::from)).collect::<Option<Vec<_>>>() {
        Some(whole) if written => Ok(whole),
        _ => Ok(values),
    }
}

/// More values than a sweep may have points are a mistake, and take all memory.
fn few(count: u32, at: Span) -> Result<(), Diagnostic> {
    if count as usize <= MOST {
        return Ok(());
    }
    Err(Diagnostic::new(format!("{count} values are too many; a sweep has at most {MOST} points")).at(at))
}

/// Draw `i` of an axis depends only on the seed, the axis's name and `i`: more draws do not change the first ones.
fn random(body: &Node, sources: &[Source], axis: &str, seed: u64, draws: u32) -> Result<Vec<String>, Diagnostic> {
    let random: Random = typed(body, "random", sources)?.expect("the field is there");
    let at = body.field("random").expect("the field is there").at;
    let fits = match random {
        Random::Uniform(low, high) => low < high && low.is_finite() && high.is_finite(),
        Random::LogUniform(low, high) => 0.0 < low && low < high && high.is_finite(),
        Random::Integers(low, high) => low <= high,
    };
    if !fits {
        return Err(Diagnostic::new(
            "a random axis needs a lower and a higher number; a logarithmic one, positive numbers",
        )
        .at(at));
    }
    few(draws, at)?;
    let purpose = format!("sweep {axis}");
    let draw = |i: u32| {
        let mut rng = Rng::new(seed, &purpose, 0, i.into());
        match random {
            Random::Uniform(low, high) => number(rng.range(low, high), 4),
            Random::LogUniform(low, high) => number(rng.range(low.ln(), high.ln()).exp(), 4),
            Random::Integers(low, high) => integer(&mut rng, low, high).to_string(),
        }
    };
    Ok((0..draws).map(draw).collect())
}

/// Uniform in low..=high. The numbers between them may be more than an `i64` can count, and with both ends more than a
/// `u64` can.
fn integer(rng: &mut Rng, low: i64, high: i64) -> i64 {
    let between = low.abs_diff(high);
    let above = if between == u64::MAX { rng.next_u64() } else { rng.below(between + 1) };
    low.wrapping_add_unsigned(above)
}

/// Formats a number with this many significant digits, as RON writes floats.
fn number(value: f64, digits: usize) -> String {
    let rounded: f64 = format!("{value:.*e}", digits - 1).parse().expect("a formatted number can be parsed");
    format!("{rounded:?}")
}

impl<'a> Written<'a> {
    /// Reads a sweep. `numbers` has the lists that [`numbers`] generated, by the name of their source.
    pub fn read(name: String, node: &Node<'a>, numbers: &HashMap<&str, Node<'a>>) -> Result<Self, Diagnostic> {
        known_fields(fields(node, "a sweep is a struct: (axes: {…})")?, &FIELDS, "a sweep")?;
        let string =
            |n: &Node| n.string().map(|s| (s, n.at)).ok_or_else(|| Diagnostic::new("this is a string").at(n.at));
        let list = |field: &str| node.field(field).map(names).transpose();
        let mut axes = vec![];
        for (axis, body) in axes_of(node)? {
            axes.push(Axis::read(&name, axis, &body, numbers)?);
        }
        let seeds = node.field("seeds");
        if let Some(seeds) = seeds {
            let fields = fields(seeds, "`seeds` is a struct: (set: [\"stage.seed\"], count: 3)")?;
            known_fields(fields, &["set", "count", "first"], "`seeds`")?;
            axes.push(Axis {
                name: SEED.into(),
                at: seeds.at,
                set: paths(seeds.field("set"), seeds.at)?,
                values: listed(&numbers[source_name(&name, SEED).as_str()])?,
                random: false,
            });
        }
        if axes.is_empty() {
            return Err(Diagnostic::new(format!("sweep '{name}' has no axes")).at(node.at).help(EXAMPLE));
        }
        let empty = axes.iter().find(|axis| axis.values.is_empty());
        if let Some(axis) = empty {
            return Err(Diagnostic::new(format!("axis '{}' has no values", axis.name)).at(axis.at));
        }
        let mut seen = HashSet::new();
        if let Some(twice) = axes.iter().find(|axis| !seen.insert(&axis.name)) {
            return Err(Diagnostic::new(format!("axis '{}' appears twice; `seeds` adds an axis '{SEED}'", twice.name))
                .at(twice.at));
        }
        let zip = match node.field("zip").map(|n| (n, &n.body)) {
            None => vec![],
            Some((_, Body::List(groups))) => groups.iter().map(names).collect::<Result<Vec<_>, _>>()?,
            Some((n, _)) => return Err(Diagnostic::new("`zip` is a list of lists of axes: [[\"a\", \"b\"]]").at(n.at)),
        };
        let sweep = Written {
            name,
            at: node.at,
            extends: node.field("extends").map(string).transpose()?,
            stages: list("stages")?,
            zip: zip.iter().map(|group| group.iter().map(|(name, _)| name.clone()).collect()).collect(),
            filter: node.field("filter").map(string).transpose()?,
            seeds: seeds.is_some(),
            axes,
        };
        for (wanted, at) in zip.iter().flatten() {
            sweep.axis(wanted, *at)?;
        }
        Ok(sweep)
    }

    fn axis(&self, wanted: &str, at: Span) -> Result<&Axis<'a>, Diagnostic> {
        let known = self.axes.iter().map(|axis| axis.name.as_str());
        let found = self.axes.iter().find(|axis| axis.name == wanted);
        found.ok_or_else(|| {
            Diagnostic::new(format!("sweep '{}' has no axis '{wanted}'", self.name)).at(at).nearest(wanted, known)
        })
    }

    /// The sweep without its points.
    pub fn outline(&self, stages: Vec<String>) -> Sweep {
        let axes = self.axes.iter().map(|axis| axis.name.clone()).collect();
        Sweep { name: self.name.clone(), axes, seeds: self.seeds, stages, points: vec![] }
    }

    /// All paths that its axes set.
    pub fn paths(&self) -> impl Iterator<Item = (&'a str, Span)> + '_ {
        self.axes.iter().flat_map(|axis| axis.set.iter().copied())
    }

    /// Its points in order. The last axis varies fastest.
    pub fn points(&self) -> Result<Vec<Layers<'a>>, Diagnostic> {
        let groups = self.groups()?;
        let count = groups.iter().try_fold(1usize, |n, group| n.checked_mul(self.axes[group[0]].values.len()));
        let Some(count) = count.filter(|n| *n <= MOST) else {
            return Err(Diagnostic::new(format!("sweep '{}' has more than {MOST} points", self.name)).at(self.at));
        };
        let filter = self.filter()?;
        let mut points = vec![];
        for number in 0..count {
            let mut places = vec![0; self.axes.len()];
            let mut rest = number;
            for group in groups.iter().rev() {
                let values = self.axes[group[0]].values.len();
                group.iter().for_each(|axis| places[*axis] = rest % values);
                rest /= values;
            }
            let layers = self.layers(&places);
            if self.keeps(filter.as_ref(), &layers.point)? {
                points.push(layers);
            }
        }
        if points.is_empty() {
            let at = self.filter.as_ref().map_or(self.at, |(_, at)| *at);
            return Err(
                Diagnostic::new(format!("the filter of sweep '{}' leaves none of {count} points", self.name)).at(at)
            );
        }
        let mut seen = HashSet::with_capacity(points.len());
        if let Some(twice) = points.iter().find(|layers| !seen.insert(&layers.point.variant)) {
            let message = format!("two points of sweep '{}' are called '{}'", self.name, twice.point.variant);
            let help = "name an axis's values: values: {\"small\": …, \"large\": …}";
            return Err(Diagnostic::new(message).at(self.at).help(help));
        }
        Ok(points)
    }

    /// Groups of axes that vary together, as indices in `axes`. All random axes form a group.
    fn groups(&self) -> Result<Vec<Vec<usize>>, Diagnostic> {
        let place =
            |name: &String| self.axes.iter().position(|axis| axis.name == *name).expect("zipped axes were looked up");
        let mut zipped: Vec<Vec<usize>> = self.zip.iter().map(|group| group.iter().map(place).collect()).collect();
        zipped.push((0..self.axes.len()).filter(|i| self.axes[*i].random).collect());
        let mut groups: Vec<Vec<usize>> = vec![];
        for (i, axis) in self.axes.iter().enumerate() {
            let mut with = zipped.iter().filter(|group| group.contains(&i));
            let group = with.next().cloned().unwrap_or_else(|| vec![i]);
            if with.next().is_some() {
                return Err(
                    Diagnostic::new(format!("axis '{}' is zipped twice, or random and zipped", axis.name)).at(axis.at)
                );
            }
            let longer =
                group.iter().map(|other| &self.axes[*other]).find(|other| other.values.len() != axis.values.len());
            if let Some(other) = longer {
                let (a, b) = (axis.values.len(), other.values.len());
                let message = format!("axis '{}' has {a} values and '{}', zipped with it, {b}", axis.name, other.name);
                return Err(Diagnostic::new(message).at(axis.at));
            }
            if !groups.contains(&group) {
                groups.push(group);
            }
        }
        Ok(groups)
    }

    fn layers(&self, places: &[usize]) -> Layers<'a> {
        let chosen = || self.axes.iter().zip(places).map(|(axis, place)| (axis, &axis.values[*place]));
        let values: Vec<String> = chosen().map(|(_, (label, _))| label.clone()).collect();
        let parts: Vec<String> = chosen().map(|(axis, (label, _))| format!("{}={label}", axis.name)).collect();
        let variant = format!("{}/{}", self.name, parts.join(","));
        let set = chosen().flat_map(|(axis, (_, value))| axis.set.iter().map(|(path, at)| (*path, *at, value.clone())));
        Layers { point: Point { variant, values }, set: set.collect() }
    }

    fn filter(&self) -> Result<Option<(Filter, Span)>, Diagnostic> {
        let Some((text, at)) = &self.filter else { return Ok(None) };
        let names: Vec<&str> = self.axes.iter().map(|axis| axis.name.as_str()).collect();
        Filter::read(text, &names).map(|filter| Some((filter, *at))).map_err(|e| e.at(*at))
    }

    fn keeps(&self, filter: Option<&(Filter, Span)>, point: &Point) -> Result<bool, Diagnostic> {
        let Some((filter, at)) = filter else { return Ok(true) };
        let names = self.axes.iter().map(|axis| axis.name.as_str());
        filter.keeps(names.zip(point.values.iter().map(String::as_str))).map_err(|e| e.at(*at))
    }
}

const EXAMPLE: &str = "axes: {\"rate\": (set: [\"train.rate\"], values: [0.1, 0.3])}";

impl<'a> Axis<'a> {
    fn read(sweep: &str, name: String, body: &Node<'a>, numbers: &HashMap<&str, Node<'a>>) -> Result<Self, Diagnostic> {
        known_fields(fields(body, "an axis is a struct: (set: [\"stage.field\"], values: […])")?, &AXIS, "an axis")?;
        let given: Vec<&str> = AXIS[1..].iter().copied().filter(|field| body.field(field).is_some()).collect();
        let [kind] = given.as_slice() else {
            let message = format!(
                "axis '{name}' has {} of `values`, `range`, `log_range` and `random`; it needs one",
                given.len()
            );
            return Err(Diagnostic::new(message).at(body.at));
        };
        let values = match (*kind, body.field("values").map(|n| (n, &n.body))) {
            ("values", Some((_, Body::Map(named)))) => named
                .iter()
                .map(|(label, value)| {
                    let label =
                        label.string().ok_or_else(|| Diagnostic::new("a value's name is a string").at(label.at))?;
                    Ok((label_of(&label), value.clone()))
                })
                .collect::<Result<_, Diagnostic>>()?,
            ("values", Some((node, _))) => listed(node)?,
            _ => listed(&numbers[source_name(sweep, &name).as_str()])?,
        };
        Ok(Axis { at: body.at, set: paths(body.field("set"), body.at)?, values, random: *kind == "random", name })
    }
}

/// The values of a list with their labels: scalars as written.
fn listed<'a>(node: &Node<'a>) -> Result<Vec<(String, Node<'a>)>, Diagnostic> {
    let Body::List(items) = &node.body else {
        return Err(Diagnostic::new("the values of an axis are a list, or a map from names").at(node.at));
    };
    let named = |item: &Node<'a>| match (&item.body, item.string()) {
        (_, Some(text)) => Ok((label_of(&text), item.clone())),
        (Body::Scalar(text), None) => Ok((label_of(text.strip_suffix(".0").unwrap_or(text)), item.clone())),
        (Body::Tuple(items), None) if items.is_empty() && item.name.is_some() => {
            Ok((label_of(item.name.unwrap_or_default()), item.clone()))
        }
        _ => Err(Diagnostic::new("a value other than a number, string or word needs a name")
            .at(item.at)
            .help("values: {\"small\": …, \"large\": …}")),
    };
    items.iter().map(named).collect()
}

/// Replaces the characters that a stage's name may not contain.
fn label_of(text: &str) -> String {
    let fits = |c: char| c.is_alphanumeric() || "_-+.@".contains(c);
    text.chars().map(|c| if fits(c) { c } else { '-' }).collect::<String>().trim_start_matches('.').into()
}

/// Dotted paths, as slices of the file's text.
fn paths<'a>(node: Option<&Node<'a>>, at: Span) -> Result<Vec<(&'a str, Span)>, Diagnostic> {
    let missing = || Diagnostic::new("`set` is a list of the fields that the axis sets: [\"stage.field\"]");
    let Some(node) = node else { return Err(missing().at(at)) };
    let Body::List(items) = &node.body else { return Err(missing().at(node.at)) };
    let path = |item: &Node<'a>| match &item.body {
        Body::Scalar(text) => text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).filter(|t| t.contains('.')),
        _ => None,
    };
    let path = |item| path(item).map(|p| (p, item.at)).ok_or_else(|| missing().at(item.at));
    items.iter().map(path).collect()
}

/// The axes of a sweep. Their names must be words, because filters refer to them.
fn axes_of<'a>(sweep: &Node<'a>) -> Result<Vec<(String, Node<'a>)>, Diagnostic> {
    let Some(node) = sweep.field("axes") else { return Ok(vec![]) };
    let axes = named_entries(node.clone(), "axes").map_err(|error| error.help(EXAMPLE))?;
    let is_word = |name: &str| name.chars().all(|c| c.is_alphanumeric() || c == '_');
    match axes.iter().find(|(name, _)| !is_word(name)) {
        Some((name, axis)) => {
            Err(Diagnostic::new(format!("'{name}' is not a valid name for an axis; use letters, digits and _"))
                .at(axis.at))
        }
        None => Ok(axes),
    }
}

fn typed<T: serde::de::DeserializeOwned>(
    node: &Node,
    field: &str,
    sources: &[Source],
) -> Result<Option<T>, Diagnostic> {
    let Some(node) = node.field(field) else { return Ok(None) };
    let text = node.text(sources);
    options().from_str(&text).map(Some).map_err(|e| Diagnostic::new(format!("'{field}': {}", e.code)).at(node.at))
}

/// An expression over names, such as `tau < 0.1 && rate >= 1`, that selects points.
pub struct Filter {
    tree: evalexpr::Node,
    text: String,
}

impl Filter {
    /// Parses an expression that may use these names. If `names` is empty, any name is allowed.
    pub fn read(text: &str, names: &[&str]) -> Result<Filter, Diagnostic> {
        let wrong = |e: evalexpr::EvalexprError| Diagnostic::new(format!("filter '{text}': {e}"));
        let tree = build_operator_tree(&with_floats(text)).map_err(wrong)?;
        let unknown = tree.iter_variable_identifiers().find(|name| !names.is_empty() && !names.contains(name));
        match unknown {
            Some(name) => {
                Err(Diagnostic::new(format!("filter '{text}': '{name}' is not known"))
                    .nearest(name, names.iter().copied()))
            }
            None => Ok(Filter { tree, text: text.into() }),
        }
    }

    /// The names that it uses.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tree.iter_variable_identifiers()
    }

    /// Whether it is true for these values. A text that is not a number is a string.
    pub fn keeps<'v>(&self, values: impl Iterator<Item = (&'v str, &'v str)>) -> Result<bool, Diagnostic> {
        let wrong = |e: evalexpr::EvalexprError| {
            Diagnostic::new(format!("filter '{}': {e}", self.text))
                .help("compare with <, <=, ==, !=, >=, >, join with &&, ||, !")
        };
        let mut context = HashMapContext::new();
        for (name, text) in values {
            let number = text.parse::<f64>().map(Value::Float);
            context.set_value(name.into(), number.unwrap_or_else(|_| Value::String(text.into()))).map_err(wrong)?;
        }
        self.tree.eval_boolean_with_context(&context).map_err(wrong)
    }
}

/// Writes whole numbers in the expression as floats: for evalexpr 1 is not 1.0, and all values are floats.
fn with_floats(text: &str) -> String {
    let mut floats = String::with_capacity(text.len() + 8);
    let mut quoted = false;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let word = |c: char| c.is_alphanumeric() || "_.".contains(c);
        let length = rest.find(|c| !word(c)).unwrap_or(rest.len());
        quoted ^= c == '"';
        let taken = if length == 0 { c.len_utf8() } else { length };
        floats.push_str(&rest[..taken]);
        if !quoted && rest[..taken].bytes().all(|b| b.is_ascii_digit()) {
            floats.push_str(".0");
        }
        rest = &rest[taken..];
    }
    floats
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_round() {
        assert_eq!([number(0.1 + 0.2, 12), number(1e-7, 4), number(2.0, 6)], ["0.3", "1e-7", "2.0"]);
    }

    #[test]
    fn integers_are_drawn_from_any_range() {
        let draws =
            |low, high| -> Vec<i64> { (0..100).map(|i| integer(&mut Rng::new(0, "x", 0, i), low, high)).collect() };
        let all = draws(i64::MIN, i64::MAX);
        assert!(all.iter().any(|draw| *draw < i64::MIN / 2) && all.iter().any(|draw| *draw > i64::MAX / 2));
        assert!(draws(i64::MIN, i64::MAX - 1).iter().any(|draw| *draw > 0));
        assert!(draws(-3, 4).iter().all(|draw| (-3..=4).contains(draw)) && draws(-3, 4).contains(&-3));
        assert_eq!(draws(i64::MAX, i64::MAX)[0], i64::MAX);
    }

    #[test]
    fn whole_numbers_in_a_filter_are_floats() {
        assert_eq!(
            with_floats("a1 >= 1 && b == 2.5 || c == \"10 x\" && d<30"),
            "a1 >= 1.0 && b == 2.5 || c == \"10 x\" && d<30.0"
        );
        let filter = Filter::read("rate == 1 && kind == \"x\"", &["rate", "kind"]).unwrap();
        assert!(filter.keeps([("rate", "1"), ("kind", "x")].into_iter()).unwrap());
        assert!(!filter.keeps([("rate", "1.5"), ("kind", "x")].into_iter()).unwrap());
        assert!(Filter::read("rte > 1", &["rate"]).is_err_and(|e| e.help[0].contains("rate")));
        assert!(filter.keeps([("rate", "a"), ("kind", "x")].into_iter()).is_ok_and(|keeps| !keeps));
    }
}
