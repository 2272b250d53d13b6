//! Merges the layers of a pipeline file: `common` under every stage, variants over the stages in `each_variant`, a
//! profile over both, `--set` on top.

use super::{
    diagnostic::Diagnostic,
    kind::Registry,
    shape::{fields, into_fields, known_fields, named_entries, names},
    sweep::{Layers, Sweep, Written},
    tree::{Field, Lack, Node, Span},
};
use std::collections::HashMap;

/// A stage's name and its body, with all layers applied.
pub struct Layered<'a> {
    /// `stage`, or `stage/variant`.
    pub name: String,
    /// The kind and its fields.
    pub node: Node<'a>,
    /// The variant it belongs to.
    pub variant: Option<String>,
}

/// The parts of a pipeline file.
#[derive(Default)]
pub struct File<'a> {
    /// Defaults for every stage whose kind has these fields.
    pub common: Vec<Field<'a>>,
    /// Stages that exist once.
    pub stages: Vec<(String, Node<'a>)>,
    /// Stages that exist once for each variant.
    pub each_variant: Vec<(String, Node<'a>)>,
    /// The variants.
    pub variants: Vec<Variant<'a>>,
    /// The sweeps, which generate variants.
    pub sweeps: Vec<(String, Node<'a>)>,
    /// The profiles: name and fields.
    pub profiles: Vec<(String, Node<'a>)>,
    /// The stages that run if the caller names none.
    pub targets: Option<Vec<(String, Span)>>,
    /// The pipeline's name.
    pub name: Option<String>,
}

/// One variant of the stages in `each_variant`.
#[derive(Clone)]
pub struct Variant<'a> {
    /// Its name.
    pub name: String,
    at: Span,
    extends: Option<(String, Span)>,
    set: Vec<(String, Node<'a>)>,
    without: Vec<(String, Span)>,
}

/// A value for one field, from the command line.
pub struct Override<'a> {
    /// `stage.field.field`, `stage/variant.field` or `common.field`.
    pub path: &'a str,
    /// The new value.
    pub value: Node<'a>,
}

const FIELDS: [&str; 8] = ["name", "common", "stages", "each_variant", "variants", "sweeps", "profiles", "targets"];

impl<'a> File<'a> {
    /// Reads the parts of the file's tree.
    pub fn read(root: Node<'a>) -> Result<Self, Diagnostic> {
        let at = root.at;
        let fields = into_fields(root, "a pipeline file is a struct: (stages: {…})")?;
        known_fields(&fields, &FIELDS, "a pipeline file")?;
        if !fields.iter().any(|f| f.key == "stages" || f.key == "each_variant") {
            return Err(Diagnostic::new("the file has no stages").at(at).help("write (stages: {\"name\": kind(…)})"));
        }
        let mut file = File::default();
        for Field { key, value, .. } in fields {
            match key {
                "name" => {
                    file.name = Some(value.string().ok_or_else(|| Diagnostic::new("a name is a string").at(value.at))?)
                }
                "common" => file.common = into_fields(value, "'common' is a struct: (field: value, …)")?,
                "stages" => file.stages = named_entries(value, key)?,
                "each_variant" => file.each_variant = named_entries(value, key)?,
                "variants" => {
                    let named = named_entries(value, key)?;
                    file.variants =
                        named.into_iter().map(|(name, node)| Variant::read(name, node)).collect::<Result<_, _>>()?;
                }
                "sweeps" => file.sweeps = named_entries(value, key)?,
                "profiles" => file.profiles = named_entries(value, key)?,
                _ => file.targets = Some(names(&value)?),
            }
        }
        Ok(file)
    }

    /// The sweeps with a profile applied.
    pub fn sweeps_under(&self, profile: Option<&str>) -> Result<Vec<(String, Node<'a>)>, Diagnostic> {
        let mut sweeps = self.sweeps.clone();
        let profile = profile.and_then(|wanted| self.profiles.iter().find(|(name, _)| name == wanted));
        let over = profile.and_then(|(_, node)| node.field("sweeps"));
        for (name, over) in over.map_or(Ok(vec![]), |n| named_entries(n.clone(), "sweeps"))? {
            let known = sweeps.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>();
            let Some(place) = known.iter().position(|known| *known == name) else {
                let error = Diagnostic::new(format!("no sweep is called '{name}'")).at(over.at);
                return Err(error.nearest(&name, known.into_iter()));
            };
            sweeps[place].1 = sweeps[place].1.overlay(&over);
        }
        Ok(sweeps)
    }

    /// Every stage with all its layers, and the sweeps. `numbers` has the generated lists of sweeps, by source.
    pub fn layer(
        &mut self,
        profile: Option<&str>,
        overrides: &[Override<'a>],
        numbers: &HashMap<&str, Node<'a>>,
        registry: &Registry,
    ) -> Result<(Vec<Layered<'a>>, Vec<Sweep>), Diagnostic> {
        let mut set = vec![];
        self.sweeps = self.sweeps_under(profile)?;
        if let Some(profile) = profile {
            set = self.apply_profile(profile)?;
        }
        let (mut stages, sweeps) = self.expand(numbers)?;
        for (target, over) in &set {
            lay(&mut stages, target, over)?;
        }
        for over in overrides {
            self.apply_override(&mut stages, over)?;
        }
        self.check_common(registry)?;
        for stage in &mut stages {
            let known = registry.find(stage.node.name.unwrap_or_default());
            let known = known.ok_or_else(|| unknown_kind(&stage.node, registry))?;
            let fits = |f: &&Field<'a>| known.fields().iter().any(|name| name == f.key);
            let below: Vec<_> = self.common.iter().filter(fits).cloned().collect();
            if !below.is_empty() {
                stage.node = stage.node.under(below);
            }
        }
        Ok((stages, sweeps))
    }

    /// A field in `common` must be a field of some kind, or it would be silently ignored.
    fn check_common(&self, registry: &Registry) -> Result<(), Diagnostic> {
        let known = || registry.kinds().iter().flat_map(|kind| kind.fields()).map(String::as_str);
        let Some(field) = self.common.iter().find(|field| known().all(|name| name != field.key)) else { return Ok(()) };
        let error =
            Diagnostic::new(format!("'common' has '{}', which no stage has as a field", field.key)).at(field.at);
        Err(error.nearest(field.key, known()))
    }

    fn apply_profile(&mut self, wanted: &str) -> Result<Vec<(String, Node<'a>)>, Diagnostic> {
        let Some((_, node)) = self.profiles.iter().find(|(name, _)| name == wanted).cloned() else {
            let known = self.profiles.iter().map(|(name, _)| name.as_str());
            return Err(Diagnostic::new(format!("no profile is called '{wanted}'")).nearest(wanted, known));
        };
        known_fields(
            fields(&node, "a profile is a struct: (set: {…})")?,
            &["common", "set", "sweeps", "without_variants", "targets"],
            "a profile",
        )?;
        if let Some(common) = node.field("common") {
            self.lay_common(into_fields(common.clone(), "'common' is a struct: (field: value, …)")?);
        }
        if let Some(without) = node.field("without_variants") {
            let without = names(without)?;
            let known = |name: &String| self.variants.iter().any(|v| v.name == *name);
            if let Some((name, at)) = without.iter().find(|(name, _)| !known(name)) {
                let error = Diagnostic::new(format!("no variant is called '{name}'")).at(*at);
                return Err(error.nearest(name, self.variants.iter().map(|v| v.name.as_str())));
            }
            self.variants.retain(|v| without.iter().all(|(name, _)| *name != v.name));
        }
        if let Some(targets) = node.field("targets") {
            self.targets = Some(names(targets)?);
        }
        node.field("set").map_or(Ok(vec![]), |n| named_entries(n.clone(), "set"))
    }

    fn lay_common(&mut self, fields: Vec<Field<'a>>) {
        for field in fields {
            match self.common.iter_mut().find(|f| f.key == field.key) {
                Some(known) => known.value = known.value.overlay(&field.value),
                None => self.common.push(field),
            }
        }
    }

    /// One stage for each of `stages`, and one for each combination of a stage in `each_variant` with a variant or a
    /// point of a sweep.
    fn expand(&mut self, numbers: &HashMap<&str, Node<'a>>) -> Result<(Vec<Layered<'a>>, Vec<Sweep>), Diagnostic> {
        let sweeps = self.sweeps.iter();
        let sweeps =
            sweeps.map(|(name, node)| Written::read(name.clone(), node, numbers)).collect::<Result<Vec<_>, _>>()?;
        let mut points = vec![];
        let mut swept = vec![];
        for sweep in &sweeps {
            let (sweep, layered) = self.sweep(sweep)?;
            swept.push(sweep);
            points.extend(layered);
        }
        let once = |(name, node)| Layered { name, node, variant: None };
        let mut stages: Vec<Layered> = std::mem::take(&mut self.stages).into_iter().map(once).collect();
        let templates: Vec<&str> = self.each_variant.iter().map(|(name, _)| name.as_str()).collect();
        for variant in &self.variants {
            let chain = self.chain(variant)?;
            for (target, node) in chain.iter().flat_map(|v| &v.set) {
                if !templates.contains(&target.as_str()) {
                    let error =
                        Diagnostic::new(format!("variant '{}' sets '{target}', which no variant has", variant.name))
                            .at(node.at);
                    return Err(error.nearest(target, templates.iter().copied()));
                }
            }
            if let Some((name, at)) = variant.without.iter().find(|(name, _)| !templates.contains(&name.as_str())) {
                let error = format!("variant '{}' leaves out '{name}', which no variant has", variant.name);
                return Err(Diagnostic::new(error).at(*at).nearest(name, templates.iter().copied()));
            }
            for (template, node) in &self.each_variant {
                if chain.iter().any(|v| v.without.iter().any(|(name, _)| name == template)) {
                    continue;
                }
                let set = chain.iter().flat_map(|v| &v.set).filter(|(target, _)| target == template);
                let node = set.fold(node.clone(), |node, (_, over)| node.overlay(over));
                stages.push(Layered {
                    name: format!("{template}/{}", variant.name),
                    node,
                    variant: Some(variant.name.clone()),
                });
            }
        }
        stages.extend(points);
        Ok((stages, swept))
    }

    /// The stages of every point of a sweep.
    fn sweep(&self, sweep: &Written<'a>) -> Result<(Sweep, Vec<Layered<'a>>), Diagnostic> {
        let templates = self.templates(sweep)?;
        let names = || templates.iter().map(|(name, _)| name.as_str());
        let target = |path: &str| {
            names().filter(|n| path.strip_prefix(n).is_some_and(|rest| rest.starts_with('.'))).max_by_key(|n| n.len())
        };
        let mut targets = HashMap::new();
        for (path, at) in sweep.paths() {
            let Some(name) = target(path) else {
                let error =
                    Diagnostic::new(format!("sweep '{}' sets '{path}', but has no such stage", sweep.name)).at(at);
                let wanted = path.split('.').next().unwrap_or_default();
                return Err(error.nearest(wanted, names()).help("write STAGE.FIELD, the stage without its point"));
            };
            let place = names().position(|known| known == name).expect("the name was found among them");
            let fields: Vec<&'a str> = path[name.len() + 1..].split('.').collect();
            lacking(&templates[place].1, name, &fields).map_err(|error| error.at(at))?;
            targets.insert(path, (place, fields));
        }
        let mut outline = sweep.outline(names().map(String::from).collect());
        let mut layered = vec![];
        for Layers { point, set } in sweep.points()? {
            let mut nodes: Vec<Node<'a>> = templates.iter().map(|(_, node)| node.clone()).collect();
            for (path, _, value) in set {
                let (place, fields) = &targets[path];
                nodes[*place] = nodes[*place].overlay(&Node::nested(fields, value));
            }
            let stage = |((name, _), node): (&(String, Node<'a>), Node<'a>)| Layered {
                name: format!("{name}/{}", point.variant),
                node,
                variant: Some(point.variant.clone()),
            };
            layered.extend(templates.iter().zip(nodes).map(stage));
            outline.points.push(point);
        }
        Ok((outline, layered))
    }

    /// The stages of each point of a sweep, as defined by the variant that the sweep extends.
    fn templates(&self, sweep: &Written<'a>) -> Result<Vec<(String, Node<'a>)>, Diagnostic> {
        let chain = match &sweep.extends {
            None => vec![],
            Some((name, at)) => match self.variants.iter().find(|v| v.name == *name) {
                Some(variant) => self.chain(variant)?,
                None => {
                    let error = Diagnostic::new(format!("no variant is called '{name}'")).at(*at);
                    return Err(error.nearest(name, self.variants.iter().map(|v| v.name.as_str())));
                }
            },
        };
        let without = |name: &str| chain.iter().any(|v| v.without.iter().any(|(w, _)| w == name));
        let laid = |(name, node): &(String, Node<'a>)| {
            let set = chain.iter().flat_map(|v| &v.set).filter(|(target, _)| target == name);
            (name.clone(), set.fold(node.clone(), |node, (_, over)| node.overlay(over)))
        };
        let Some(wanted) = &sweep.stages else {
            let templates: Vec<_> = self.each_variant.iter().filter(|(name, _)| !without(name)).map(laid).collect();
            if templates.is_empty() {
                let error =
                    Diagnostic::new(format!("sweep '{}' has no stages: the file has no `each_variant`", sweep.name));
                return Err(error.at(sweep.at).help("name some: stages: [\"train\", \"evaluate\"]"));
            }
            return Ok(templates);
        };
        let known = || self.each_variant.iter().chain(&self.stages);
        let find = |(name, at): &(String, Span)| match known().find(|(known, _)| known == name) {
            Some(found) => Ok(laid(found)),
            None => {
                let error = Diagnostic::new(format!("no stage is called '{name}'")).at(*at);
                Err(error.nearest(name, known().map(|(name, _)| name.as_str())))
            }
        };
        wanted.iter().map(find).collect()
    }

    /// The variant and all that it extends, the most distant first.
    fn chain(&self, variant: &Variant<'a>) -> Result<Vec<&Variant<'a>>, Diagnostic> {
        let by_name: HashMap<&str, &Variant> = self.variants.iter().map(|v| (v.name.as_str(), v)).collect();
        let mut chain = vec![by_name[variant.name.as_str()]];
        while let Some((name, at)) = &chain[chain.len() - 1].extends {
            let Some(next) = by_name.get(name.as_str()) else {
                let error = Diagnostic::new(format!("no variant is called '{name}'")).at(*at);
                return Err(error.nearest(name, by_name.keys().copied()));
            };
            if chain.iter().any(|v| v.name == next.name) {
                let path: Vec<&str> = chain.iter().map(|v| v.name.as_str()).chain([next.name.as_str()]).collect();
                return Err(Diagnostic::new(format!("variants extend each other: {}", path.join(" -> "))).at(*at));
            }
            chain.push(next);
        }
        chain.reverse();
        Ok(chain)
    }

    fn apply_override(&mut self, stages: &mut [Layered<'a>], over: &Override<'a>) -> Result<(), Diagnostic> {
        if let Some(path) = over.path.strip_prefix("common.") {
            let path: Vec<&str> = path.split('.').collect();
            let nested = Node::nested(&path, over.value.clone());
            self.lay_common(into_fields(nested, "--set common.FIELD=VALUE")?);
            return Ok(());
        }
        let names =
            stages.iter().map(|s| s.name.as_str()).chain(self.each_variant.iter().map(|(name, _)| name.as_str()));
        let target = names
            .filter(|n| over.path.strip_prefix(n).is_some_and(|rest| rest.starts_with('.')))
            .max_by_key(|n| n.len());
        let Some(target) = target.map(str::to_string) else {
            let wanted = over.path.split('.').next().unwrap_or_default();
            let known =
                stages.iter().map(|s| s.name.as_str()).chain(self.each_variant.iter().map(|(name, _)| name.as_str()));
            let error = Diagnostic::new(format!("--set {}: no stage is called '{wanted}'", over.path));
            return Err(error.nearest(wanted, known).help("write --set STAGE.FIELD=VALUE or --set common.FIELD=VALUE"));
        };
        let path: Vec<&str> = over.path[target.len() + 1..].split('.').collect();
        let of_target = |stage: &&Layered| stage.name == target || stage.name.starts_with(&format!("{target}/"));
        if let Some(stage) = stages.iter().find(of_target) {
            lacking(&stage.node, &target, &path).map_err(|error| error.at(over.value.at))?;
        }
        lay(stages, &target, &Node::nested(&path, over.value.clone()))
    }
}

impl<'a> Variant<'a> {
    fn read(name: String, node: Node<'a>) -> Result<Self, Diagnostic> {
        known_fields(fields(&node, "a variant is a struct: (set: {…})")?, &["extends", "set", "without"], "a variant")?;
        let string = |n: &Node| {
            n.string().map(|s| (s, n.at)).ok_or_else(|| Diagnostic::new("the name of a variant is a string").at(n.at))
        };
        Ok(Variant {
            name,
            at: node.at,
            extends: node.field("extends").map(string).transpose()?,
            set: node.field("set").map_or(Ok(vec![]), |n| named_entries(n.clone(), "set"))?,
            without: node.field("without").map_or(Ok(vec![]), names)?,
        })
    }

    /// Its location.
    pub fn at(&self) -> Span {
        self.at
    }
}

/// An error if a path leads to an entry that a map does not have yet, or into a value without fields.
fn lacking(node: &Node, stage: &str, path: &[&str]) -> Result<(), Diagnostic> {
    let has_no = format!("stage '{stage}' has no '{}'", path.join("."));
    match node.lacks(path) {
        None => Ok(()),
        Some(Lack::Entry(key)) => Err(Diagnostic::new(format!("{has_no}: its map has no entry '{key}'"))
            .help(format!("give it one in the file first, with its usual value: \"{key}\": …"))),
        Some(Lack::Fields(key, value)) => {
            let end = path.iter().rposition(|part| *part == key).unwrap_or_default();
            let whole = [&[stage], &path[..end]].concat().join(".");
            Err(Diagnostic::new(format!("{has_no}: {value} has no fields"))
                .help(format!("replace it: {whole}=VALUE, such as a variant with fields: VARIANT({key}: …)")))
        }
    }
}

/// Merges `over` into the stage of that name, or into all its variants.
fn lay<'a>(stages: &mut [Layered<'a>], target: &str, over: &Node<'a>) -> Result<(), Diagnostic> {
    let mut found = false;
    for stage in stages.iter_mut() {
        let of_template =
            stage.variant.as_ref().is_some_and(|v| stage.name.strip_suffix(v.as_str()) == Some(&format!("{target}/")));
        if stage.name == target || of_template {
            stage.node = stage.node.overlay(over);
            found = true;
        }
    }
    if found {
        return Ok(());
    }
    let error = Diagnostic::new(format!("no stage is called '{target}'")).at(over.at);
    Err(error.nearest(target, stages.iter().map(|s| s.name.as_str())))
}

fn unknown_kind(node: &Node, registry: &Registry) -> Diagnostic {
    let kinds = registry.kinds().iter().map(|k| k.name);
    match node.name {
        Some(name) => {
            let at = node.at.until(node.at.start + name.len() as u32);
            Diagnostic::new(format!("no stage kind is called '{name}'")).at(at).nearest(name, kinds)
        }
        None => Diagnostic::new("a stage names its kind: kind(field: value, …)").at(node.at).nearest("", kinds),
    }
}
