//! A pipeline, as passed to the engine: every stage with its resolved parameters, inputs and outputs.

use super::{
    diagnostic::Diagnostic,
    kind::{Expected, Input, Output, ReadError, Registry, Source, options},
    layers::{File, Layered, Override},
    mismatch::{range_error, ron_error},
    policy::{self, Policy},
    sweep::{self, Sweep},
    tree::{self, Body, Iteration, Node, Span, Texts, Tree},
};
use rayon::prelude::*;
use std::{
    collections::{BTreeMap, HashSet},
    path::{Component, Path, PathBuf},
};

/// The caller's changes to a pipeline file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overlay {
    /// One of the file's profiles.
    pub profile: Option<String>,
    /// `path=value`, in order.
    pub set: Vec<String>,
}

/// A pipeline file, resolved.
#[derive(Clone, Debug)]
pub struct Pipeline {
    /// Its name. By default, the name of the file without its extension.
    pub name: String,
    /// The file, as the caller names it.
    pub path: PathBuf,
    /// The folder of its project, absolute: its relative paths start there.
    pub root: PathBuf,
    /// Its stages, in the order of the file.
    pub stages: Vec<Stage>,
    /// The stages that run if the caller names none. `None` means all.
    pub targets: Option<Vec<String>>,
    /// The names of the file's profiles.
    pub profiles: Vec<String>,
    /// Its sweeps with their points.
    pub sweeps: Vec<Sweep>,
    /// The texts it was read from, for messages.
    pub sources: Vec<tree::Source>,
    /// The iterations of its loops, for messages.
    pub iterations: Vec<Iteration>,
    /// The caller's changes to it.
    pub overlay: Overlay,
    /// The known stage kinds.
    pub registry: &'static Registry,
}

/// A stage.
#[derive(Clone, Debug)]
pub struct Stage {
    /// Its name.
    pub name: String,
    /// The stage kind.
    pub kind: &'static str,
    /// Whether it runs an arbitrary program.
    pub is_command: bool,
    /// Whether it computes tensors on the device that a run chooses.
    pub uses_device: bool,
    /// Whether its result has the same bytes on every machine.
    pub is_portable: bool,
    /// Whether it combines the metrics of others into a table.
    pub is_comparison: bool,
    /// The version of the kind's code.
    pub version: u32,
    /// The parameters that decide the result, as canonical JSON.
    pub key_parameters: Box<str>,
    /// All parameters, as JSON. Empty if equal to `key_parameters`.
    pub parameters: Box<str>,
    /// Its inputs.
    pub inputs: Vec<Input>,
    /// Its outputs.
    pub outputs: Vec<Output>,
    /// The output that was published, if the file says which one.
    pub expected: Option<Expected>,
    /// How it is run.
    pub policy: Policy,
    /// Additional parts of the key: determinism class values by name.
    pub pin: BTreeMap<String, String>,
    /// Its location.
    pub at: Span,
}

impl Stage {
    /// All parameters, as JSON.
    pub fn parameters(&self) -> &str {
        if self.parameters.is_empty() { &self.key_parameters } else { &self.parameters }
    }
}

/// A pipeline file that could not be read.
#[derive(Debug)]
pub struct Invalid {
    /// Every error found, in the order of the file.
    pub errors: Vec<Diagnostic>,
    /// The texts they point into.
    pub sources: Vec<tree::Source>,
}

impl Invalid {
    /// One error without a location.
    pub fn plain(message: impl Into<String>) -> Self {
        Invalid { errors: vec![Diagnostic::new(message)], sources: vec![] }
    }
}

impl std::fmt::Display for Invalid {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let text: Vec<String> = self.errors.iter().map(|e| e.render(&self.sources, false)).collect();
        f.write_str(&text.join("\n\n"))
    }
}

impl std::error::Error for Invalid {}

impl Pipeline {
    /// Reads a pipeline file. Its project is the current folder: see [`Pipeline::in_project`].
    pub fn load(path: &Path, overlay: &Overlay, registry: &'static Registry) -> Result<Pipeline, Invalid> {
        Self::parse(path, read(path)?, overlay, registry)
    }

    /// Reads the text of a pipeline file.
    pub fn parse(
        path: &Path,
        text: String,
        overlay: &Overlay,
        registry: &'static Registry,
    ) -> Result<Pipeline, Invalid> {
        let mut sources = vec![tree::Source { name: path.display().to_string(), text: one_line_break(text) }];
        for set in &overlay.set {
            let (name, text) = set
                .split_once('=')
                .ok_or_else(|| Invalid::plain(format!("--set {set}: '=' is missing; write --set STAGE.FIELD=VALUE")))?;
            let text = one_line_break(text.trim().into());
            sources.push(tree::Source { name: format!("--set {}", name.trim()), text });
        }
        match sweep_numbers(&sources, overlay) {
            Ok(numbers) => sources.extend(numbers),
            Err(error) => return Err(Invalid { errors: vec![error], sources }),
        }
        match resolve(&sources, path, overlay, registry) {
            Ok(pipeline) => Ok(Pipeline { sources, overlay: overlay.clone(), ..pipeline }),
            Err(mut errors) => {
                errors.sort_by_key(|e| e.span.map(|s| (s.source(), s.start, s.iteration())));
                Err(Invalid { errors, sources })
            }
        }
    }

    /// The same pipeline, as one of the project in this folder.
    pub fn in_project(self, root: &Path) -> Pipeline {
        Pipeline { root: root.into(), ..self }
    }

    /// The absolute path of the file, the same from every folder.
    pub fn file(&self) -> PathBuf {
        absolute(&self.path)
    }

    /// The path of the file inside its project; where it is outside, the path as the caller names it.
    pub fn path_in_project(&self) -> PathBuf {
        self.file().strip_prefix(&self.root).map_or_else(|_| self.path.clone(), Path::to_path_buf)
    }

    /// The absolute path of one that a pipeline file names.
    pub fn resolve(&self, path: &str) -> PathBuf {
        let joined = self.root.join(path);
        std::path::absolute(&joined).unwrap_or(joined)
    }

    /// The line number of a location, counted from 1.
    pub fn line(&self, span: Span) -> usize {
        let text = self.sources.get(span.source()).map_or("", |s| s.text.as_str());
        text.as_bytes()[..(span.start as usize).min(text.len())].iter().filter(|b| **b == b'\n').count() + 1
    }

    /// The location of a stage, as `file:line`.
    pub fn place(&self, stage: &Stage) -> String {
        let name = self.sources.get(stage.at.source()).map_or("", |s| s.name.as_str());
        format!("{name}:{}", self.line(stage.at))
    }

    /// The location of the value of a stage's field, as `file:line`. `None` if it is a default.
    pub fn field_place(&self, stage: &Stage, field: &str) -> Option<String> {
        self.field_at(stage, field).map(|at| self.place_of(at))
    }

    /// A location as `file:line`; of a value that was given with `--set`, as `--set PATH`.
    pub fn place_of(&self, at: Span) -> String {
        let source = &self.sources[at.source()];
        if at.source() == 0 { format!("{}:{}", source.name, self.line(at)) } else { source.name.clone() }
    }

    /// The location of the value of a stage's field. `None` if it is a default.
    pub fn field_at(&self, stage: &Stage, field: &str) -> Option<Span> {
        let texts = Texts::default();
        let root = Tree::read(0, &self.sources[0].text, &texts).ok()?.root;
        let (overrides, numbers) = (overrides(&self.sources).ok()?, numbers_of(&self.sources).ok()?);
        let profile = self.overlay.profile.as_deref();
        let (layered, _) = File::read(root).ok()?.layer(profile, &overrides, &numbers, self.registry).ok()?;
        let mut node = &layered.iter().find(|l| l.name == stage.name)?.node;
        let mut found = None;
        for part in field.split('.') {
            let name = part.split('[').next().unwrap_or(part);
            match node.field(name) {
                Some(inner) => {
                    node = inner;
                    found = Some(inner.at);
                }
                None => break,
            }
        }
        found
    }

    /// The same file under other changes, from the text that was read before.
    pub fn under(&self, overlay: &Overlay) -> Result<Pipeline, Invalid> {
        let text = self.sources[0].text.clone();
        Ok(Self::parse(&self.path, text, overlay, self.registry)?.in_project(&self.root))
    }

    /// The error, located at `reference` inside a stage.
    pub fn at_reference(&self, stage: &Stage, reference: &str, error: Diagnostic) -> Invalid {
        let texts = Texts::default();
        let quoted = format!("\"{reference}\"");
        let within = Tree::read(0, &self.sources[0].text, &texts).ok().and_then(|Tree { root, .. }| {
            let inside = |span: &Span| span.start >= stage.at.start && span.end <= stage.at.end;
            let in_stage = find_in(&root, stage.at).and_then(|node| node.find_scalar(&|t| t == quoted)).filter(inside);
            in_stage.or_else(|| root.find_scalar(&|t| t == quoted))
        });
        self.invalid(error.at(within.unwrap_or(stage.at)))
    }

    /// An error in this pipeline's file.
    pub fn invalid(&self, error: Diagnostic) -> Invalid {
        Invalid { errors: vec![error.in_iterations(&self.iterations)], sources: self.sources.clone() }
    }

    /// Whether the file has this string.
    pub fn has_string(&self, text: &str) -> bool {
        let texts = Texts::default();
        let quoted = format!("\"{text}\"");
        let tree = Tree::read(0, &self.sources[0].text, &texts);
        tree.is_ok_and(|tree| tree.root.find_scalar(&|scalar| scalar == quoted).is_some())
    }

    /// The text of a pipeline file with its loops expanded and without comments.
    pub fn expand(path: &Path) -> Result<String, Invalid> {
        let sources = vec![tree::Source { name: path.display().to_string(), text: one_line_break(read(path)?) }];
        let texts = Texts::default();
        match Tree::read(0, &sources[0].text, &texts) {
            Ok(tree) => Ok(tree.root.laid_out()),
            Err(error) => Err(Invalid { errors: vec![error], sources: sources.clone() }),
        }
    }
}

/// The absolute path of one that starts at the current folder. Links are resolved only where a `..` has to be.
pub fn absolute(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.into());
    let has_parent = absolute.components().any(|part| part == Component::ParentDir);
    match (absolute.parent().filter(|_| has_parent).and_then(|above| above.canonicalize().ok()), absolute.file_name()) {
        (Some(above), Some(name)) => above.join(name),
        _ => absolute,
    }
}

fn read(path: &Path) -> Result<String, Invalid> {
    let text = std::fs::read(path).map_err(|e| Invalid::plain(format!("cannot read {}: {e}", path.display())))?;
    String::from_utf8(text).map_err(|e| {
        let line = e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count() + 1;
        Invalid::plain(format!("{}: line {line} is not UTF-8", path.display()))
    })
}

/// A text whose lines end with a line feed only. What an editor or git ends lines with is not part of a string that goes
/// over several lines: a shell would take the carriage return for a part of a word.
fn one_line_break(text: String) -> String {
    if text.contains("\r\n") { text.replace("\r\n", "\n") } else { text }
}

/// The node that covers exactly this span.
fn find_in<'n, 'a>(node: &'n Node<'a>, at: Span) -> Option<&'n Node<'a>> {
    use tree::Body::*;
    if node.at == at {
        return Some(node);
    }
    match &node.body {
        Scalar(_) | For(_) => None,
        Struct(fields) => fields.iter().find_map(|f| find_in(&f.value, at)),
        Tuple(items) | List(items) => items.iter().find_map(|n| find_in(n, at)),
        Map(entries) => entries.iter().find_map(|(_, v)| find_in(v, at)),
    }
}

fn resolve(
    sources: &[tree::Source],
    path: &Path,
    overlay: &Overlay,
    registry: &'static Registry,
) -> Result<Pipeline, Vec<Diagnostic>> {
    let texts = Texts::default();
    let Tree { root, iterations } = Tree::read(0, &sources[0].text, &texts).map_err(|error| vec![error])?;
    let resolved = resolve_tree(root, sources, path, overlay, registry);
    match resolved {
        Ok(pipeline) => Ok(Pipeline { iterations, ..pipeline }),
        Err(errors) => Err(errors.into_iter().map(|error| error.in_iterations(&iterations)).collect()),
    }
}

fn resolve_tree<'a>(
    root: Node<'a>,
    sources: &'a [tree::Source],
    path: &Path,
    overlay: &Overlay,
    registry: &'static Registry,
) -> Result<Pipeline, Vec<Diagnostic>> {
    let one = |e: Diagnostic| vec![e];
    let mut file = File::read(root).map_err(one)?;
    let overrides = overrides(sources).map_err(one)?;
    let numbers = numbers_of(sources).map_err(one)?;
    let (layered, sweeps) = file.layer(overlay.profile.as_deref(), &overrides, &numbers, registry).map_err(one)?;
    let name = file.name.clone().unwrap_or_else(|| path.file_stem().unwrap_or_default().to_string_lossy().into());
    let variants = file.each_variant.iter().map(|(name, _)| name);
    let templates: HashSet<String> = variants.chain(sweeps.iter().flat_map(|sweep| &sweep.stages)).cloned().collect();
    let names: HashSet<&str> = layered.iter().map(|l| l.name.as_str()).collect();
    if names.len() < layered.len() {
        let mut seen = HashSet::new();
        let twice = layered.iter().find(|l| !seen.insert(&l.name)).expect("one name is duplicate");
        return Err(one(Diagnostic::new(format!("two stages are called '{}'", twice.name)).at(twice.node.at)));
    }
    let read = |layered: &Layered| stage(layered, sources, &templates, &names, registry);
    let (stages, errors): (Vec<_>, Vec<_>) = layered.par_iter().map(read).partition_map(|result| match result {
        Ok(stage) => rayon::iter::Either::Left(stage),
        Err(error) => rayon::iter::Either::Right(error),
    });
    if !errors.is_empty() {
        return Err(errors);
    }
    let targets = file.targets.map(|targets| targets.into_iter().map(|(name, _)| name).collect());
    let profiles = file.profiles.iter().map(|(name, _)| name.clone()).collect();
    let path = path.into();
    Ok(Pipeline {
        name,
        path,
        root: std::env::current_dir().unwrap_or_default(),
        stages,
        targets,
        profiles,
        sweeps,
        sources: vec![],
        iterations: vec![],
        overlay: Overlay::default(),
        registry,
    })
}

/// The sources of the generated numbers of sweeps. Errors in the file itself are reported where it is read.
fn sweep_numbers(sources: &[tree::Source], overlay: &Overlay) -> Result<Vec<tree::Source>, Diagnostic> {
    if !sources[0].text.contains("sweeps") {
        return Ok(vec![]);
    }
    let texts = Texts::default();
    let Ok(Tree { root, iterations }) = Tree::read(0, &sources[0].text, &texts) else { return Ok(vec![]) };
    let Ok(file) = File::read(root) else { return Ok(vec![]) };
    let sweeps = file.sweeps_under(overlay.profile.as_deref());
    sweeps.and_then(|sweeps| sweep::numbers(&sweeps, sources)).map_err(|error| error.in_iterations(&iterations))
}

/// The generated numbers as lists, by the name of their source.
fn numbers_of(sources: &[tree::Source]) -> Result<std::collections::HashMap<&str, Node<'_>>, Diagnostic> {
    let numbers = sources.iter().enumerate().skip(1).filter(|(_, source)| !source.name.starts_with(SET));
    numbers.map(|(i, source)| Ok((source.name.as_str(), Node::parse(i as u32, &source.text)?))).collect()
}

/// The prefix of the name of a source from `--set`.
const SET: &str = "--set ";

/// The `--set` options.
fn overrides(sources: &[tree::Source]) -> Result<Vec<Override<'_>>, Diagnostic> {
    let mut overrides = vec![];
    for (i, source) in sources.iter().enumerate().skip(1).filter(|(_, source)| source.name.starts_with(SET)) {
        let help = "a string needs quotes: --set 'stage.field=\"text\"'; a folder: --set 'stage.root=Path(\"/data\")'";
        let value = Node::parse(i as u32, &source.text).map_err(|e| e.help(help))?;
        overrides.push(Override { path: &source.name[SET.len()..], value });
    }
    Ok(overrides)
}

fn stage(
    layered: &Layered,
    sources: &[tree::Source],
    templates: &HashSet<String>,
    names: &HashSet<&str>,
    registry: &'static Registry,
) -> Result<Stage, Diagnostic> {
    let entry = registry.find(layered.node.name.unwrap_or_default()).expect("kinds were looked up while layering");
    let policy = extra::<Policy>(layered, "run", sources)?.unwrap_or_default();
    if policy.step_digests && !entry.training {
        return Err(in_stage(layered, policy::no_steps(layered, entry.name, registry)));
    }
    let pin = extra::<BTreeMap<String, String>>(layered, "pin", sources)?.unwrap_or_default();
    let has_extra = layered.node.field("run").is_some() || layered.node.field("pin").is_some();
    let body =
        if has_extra { layered.node.clone().retain(|key| key != "run" && key != "pin") } else { layered.node.clone() };
    if entry.command
        && let Some(parameters) = body.field("parameters")
    {
        plain_values(parameters).map_err(|error| in_stage(layered, error))?;
    }
    let rendered = body.named(None).render(sources);
    let read = (entry.read)(&rendered.text).map_err(|error| {
        let error = match error {
            ReadError::Ron(error) => ron_error(&error, &rendered, layered),
            ReadError::Range(complaint) => range_error(complaint, layered),
        };
        in_stage(layered, error)
    })?;
    policy::check_processes(&policy, layered, read.most_processes).map_err(|error| in_stage(layered, error))?;
    let inputs =
        read.inputs.into_iter().map(|input| scoped(input, layered.variant.as_deref(), templates, names)).collect();
    Ok(Stage {
        name: layered.name.clone(),
        kind: entry.name,
        is_command: entry.command,
        uses_device: entry.device && !read.is_portable,
        is_portable: read.is_portable,
        is_comparison: entry.comparison,
        version: entry.version,
        key_parameters: read.key_parameters,
        parameters: read.parameters,
        inputs,
        outputs: read.outputs,
        expected: read.expected,
        policy,
        pin,
        at: layered.node.at,
    })
}

fn in_stage(layered: &Layered, error: Diagnostic) -> Diagnostic {
    Diagnostic { message: format!("stage '{}': {}", layered.name, error.message), ..error }
}

/// Checks a command's parameters. They may be of any type, so a word without quotes would parse as an empty value.
fn plain_values(node: &Node) -> Result<(), Diagnostic> {
    let wrong = |message: String| Err(Diagnostic::new(message).at(node.at));
    if let Some(name) = node.name {
        return wrong(format!("`{name}(…)` is not a valid parameter; use numbers, strings, booleans, lists and maps"));
    }
    match &node.body {
        Body::Scalar("true" | "false") => Ok(()),
        Body::Scalar("None") => wrong("a parameter cannot be None; leave it out, or give it a value".into()),
        Body::Tuple(items) if items.is_empty() => wrong("() is not a value; leave the parameter out".into()),
        Body::Scalar(text) if text.ends_with(['"', '#', '\'']) => Ok(()),
        Body::Scalar(text) if text.starts_with(|c: char| c.is_alphabetic() || c == '_') => {
            let known = if text.parse::<f64>().is_ok() {
                "numbers must be finite".into()
            } else if text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false") {
                format!("write {}", text.to_lowercase())
            } else {
                format!("a string needs quotes: \"{text}\"")
            };
            wrong(format!("{text} is not a value; {known}"))
        }
        Body::Scalar(text) if text.replace('_', "").parse().is_ok_and(|number: f64| !number.is_finite()) => {
            wrong(format!("{text} is not a finite number"))
        }
        Body::Scalar(_) | Body::For(_) => Ok(()),
        Body::Struct(fields) => fields.iter().try_for_each(|field| plain_values(&field.value)),
        Body::Tuple(items) | Body::List(items) => items.iter().try_for_each(plain_values),
        Body::Map(entries) => entries.iter().try_for_each(|(_, value)| plain_values(value)),
    }
}

fn extra<T: serde::de::DeserializeOwned>(
    layered: &Layered,
    field: &str,
    sources: &[tree::Source],
) -> Result<Option<T>, Diagnostic> {
    let Some(node) = layered.node.field(field) else { return Ok(None) };
    let rendered = node.render(sources);
    options().from_str(&rendered.text).map(Some).map_err(|e| ron_error(&e, &rendered, layered))
}

/// Inside a variant, the name of a stage in `each_variant` refers to this variant's own stage.
fn scoped(input: Input, variant: Option<&str>, templates: &HashSet<String>, names: &HashSet<&str>) -> Input {
    let (Some(variant), Source::Stage(reference)) = (variant, &input.source) else { return input };
    let mut end = reference.len();
    loop {
        let (head, tail) = reference.split_at(end);
        let own = format!("{head}/{variant}");
        if templates.contains(head) && names.contains(own.as_str()) {
            return Input { source: Source::Stage(format!("{own}{tail}")), ..input };
        }
        if names.contains(head) {
            return input;
        }
        match head.rfind('/') {
            Some(slash) => end = slash,
            None => return input,
        }
    }
}

/// Replaces `${VAR}` and `${VAR:-default}` from the environment. The error is the name of a variable that is not set.
pub fn expand(path: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = path;
    while let Some(open) = rest.find("${") {
        out.push_str(&rest[..open]);
        let Some(close) = rest[open..].find('}') else { break };
        let inside = &rest[open + 2..open + close];
        let (name, default) = inside.split_once(":-").map_or((inside, None), |(name, default)| (name, Some(default)));
        match (std::env::var(name).ok().filter(|v| !v.is_empty()), default) {
            (Some(value), _) => out.push_str(&value),
            (None, Some(default)) => out.push_str(default),
            (None, None) => return Err(name.into()),
        }
        rest = &rest[open + close + 1..];
    }
    out.push_str(rest);
    Ok(out)
}
