//! A run as a Workflow Run RO-Crate: the profiles Process, Workflow and Provenance Run Crate 0.5 on RO-Crate 1.1
//! (<https://www.researchobject.org/workflow-run-crate/profiles/>). One action per result, one step per stage.

use super::{
    evidence::{Evidence, provenance},
    statement::{Descriptor, Provenance},
};
use anyhow::{Context, Result};
use caco_engine::{
    graph::{Graph, Id, METRICS, METRICS_PATH},
    key::Key,
    store::{ATTESTATION, Artifact, Published, Store},
};
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
};

const PROFILES: [(&str, &str); 4] = [
    ("https://w3id.org/ro/wfrun/process/0.5", "Process Run Crate"),
    ("https://w3id.org/ro/wfrun/workflow/0.5", "Workflow Run Crate"),
    ("https://w3id.org/ro/wfrun/provenance/0.5", "Provenance Run Crate"),
    ("https://w3id.org/workflowhub/workflow-ro-crate/1.0", "Workflow RO-Crate"),
];

/// Options of a crate.
#[derive(Clone, Debug)]
pub struct Packing {
    /// Outputs larger than this many bytes are described but not copied.
    pub largest: u64,
    /// The licence.
    pub license: String,
}

/// What was packed.
#[derive(Clone, Copy, Debug, Default, serde::Serialize, schemars::JsonSchema)]
pub struct Packed {
    /// Results.
    pub results: usize,
    /// Outputs copied.
    pub copied: usize,
    /// Outputs that were only described, not copied.
    pub described: usize,
}

/// One result of the run.
struct Made {
    id: Id,
    published: Published,
    provenance: Option<Provenance>,
}

/// Entities by id, in the order in which they were first added.
#[derive(Default)]
struct Entities {
    order: Vec<String>,
    by_id: HashMap<String, Map<String, Value>>,
}

impl Entities {
    /// Adds an entity, or further properties of one.
    fn add(&mut self, id: &str, properties: Value) {
        let Value::Object(properties) = properties else { return };
        if !self.by_id.contains_key(id) {
            self.order.push(id.into());
        }
        let entity = self.by_id.entry(id.into()).or_default();
        entity.insert("@id".into(), id.into());
        entity.extend(properties);
    }

    fn graph(mut self) -> Vec<Value> {
        self.order.iter().filter_map(|id| self.by_id.remove(id)).map(Value::Object).collect()
    }
}

fn reference(id: &str) -> Value {
    json!({ "@id": id })
}

fn references<'i>(ids: impl IntoIterator<Item = &'i String>) -> Value {
    ids.into_iter().map(|id| reference(id)).collect()
}

/// A path as part of a URI.
fn encoded(path: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~/".contains(&b);
    path.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// Packs the results of these stages and their sources into a folder that is empty or does not exist yet.
pub fn pack(graph: &Graph, store: &Store, results: &[(Id, Published)], to: &Path, packing: &Packing) -> Result<Packed> {
    let made = results.iter().map(|(id, published)| {
        let evidence = Evidence::of(store, published.key)?;
        let envelope = evidence.and_then(|evidence| evidence.envelope().ok().flatten());
        let provenance = envelope.map(|envelope| provenance(&envelope)).transpose()?.map(|s| s.predicate);
        Ok(Made { id: *id, published: published.clone(), provenance })
    });
    let made = made.collect::<Result<Vec<Made>>>()?;
    fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    let mut packer = Packer {
        graph,
        store,
        to,
        packing,
        entities: Entities::default(),
        parts: vec![],
        files: HashMap::new(),
        packed: Packed { results: made.len(), ..Packed::default() },
    };
    packer.write(&made)?;
    let packed = packer.packed;
    let metadata = json!({
        "@context": ["https://w3id.org/ro/crate/1.1/context", { "sha256": "https://w3id.org/ro/terms/workflow-run#sha256" }],
        "@graph": packer.entities.graph(),
    });
    let path = to.join("ro-crate-metadata.json");
    let text = serde_json::to_string_pretty(&metadata)? + "\n";
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(packed)
}

struct Packer<'a> {
    graph: &'a Graph,
    store: &'a Store,
    to: &'a Path,
    packing: &'a Packing,
    entities: Entities,
    /// The data entities of the root.
    parts: Vec<String>,
    /// The entity of each output, by key and name.
    files: HashMap<(Key, String), String>,
    packed: Packed,
}

impl Packer<'_> {
    fn write(&mut self, made: &[Made]) -> Result<()> {
        self.head(made);
        let workflow = self.workflow()?;
        let mut actions = vec![];
        for (position, made) in made.iter().enumerate() {
            actions.push(self.result(made, position)?);
        }
        self.run(made, &workflow, &actions);
        let root = json!({ "hasPart": references(&self.parts), "mainEntity": reference(&workflow), "mentions": [reference("#run")] });
        self.entities.add("./", root);
        Ok(())
    }

    fn head(&mut self, made: &[Made]) {
        let name = &self.graph.pipeline.name;
        let last =
            made.iter().filter_map(|m| Some(m.provenance.as_ref()?.run_details.metadata.finished_on.clone())).max();
        self.entities.add(
            "ro-crate-metadata.json",
            json!({
                "@type": "CreativeWork",
                "about": reference("./"),
                "conformsTo": [reference("https://w3id.org/ro/crate/1.1"), reference(PROFILES[3].0)],
            }),
        );
        let license = self.license();
        let profiles: Vec<Value> = PROFILES.iter().map(|(id, _)| reference(id)).collect();
        self.entities.add(
            "./",
            json!({
                "@type": "Dataset",
                "name": format!("A run of the pipeline {name}"),
                "description": format!("{} results of the pipeline {name}, with the attestation of each, packed by caco", made.len()),
                "datePublished": last.unwrap_or_else(|| "1970-01-01".into()),
                "license": license,
                "conformsTo": profiles,
            }),
        );
        for (id, name) in PROFILES {
            let version = id.rsplit('/').next().unwrap_or_default();
            self.entities.add(id, json!({ "@type": "CreativeWork", "name": name, "version": version }));
        }
    }

    fn license(&mut self) -> Value {
        let license = self.packing.license.clone();
        if !license.contains("://") {
            return license.into();
        }
        self.entities.add(
            &license,
            json!({ "@type": "CreativeWork", "name": license, "description": "the licence of this crate" }),
        );
        reference(&license)
    }

    /// The pipeline file, its language, and the program that ran it.
    fn workflow(&mut self) -> Result<String> {
        let pipeline = &self.graph.pipeline;
        let file = pipeline.path.file_name().map_or("pipeline.ron".into(), |name| name.to_string_lossy().into_owned());
        let text = pipeline.sources.first().map_or("", |source| source.text.as_str());
        let path = self.to.join(&file);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        let id = encoded(&file);
        self.entities.add(
            "#ron",
            json!({ "@type": "ComputerLanguage", "name": "Rusty Object Notation, as caco reads it", "alternateName": "RON", "identifier": reference("https://github.com/ron-rs/ron"), "url": reference("https://github.com/ron-rs/ron") }),
        );
        self.entities.add("https://github.com/ron-rs/ron", json!({ "@type": "WebPage", "name": "RON" }));
        self.entities.add(
            "#caco",
            json!({ "@type": "SoftwareApplication", "name": "caco", "softwareVersion": env!("CARGO_PKG_VERSION"), "description": "runs content-hashed pipelines" }),
        );
        let digest = Descriptor::of_bytes("pipeline", text.as_bytes());
        self.entities.add(
            &id,
            json!({
                "@type": ["File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"],
                "name": pipeline.name,
                "programmingLanguage": reference("#ron"),
                "encodingFormat": "text/plain",
                "contentSize": text.len().to_string(),
                "sha256": digest.sha256(),
            }),
        );
        self.parts.push(id.clone());
        Ok(id)
    }

    /// One result: its action, its tool, its step, and its files.
    fn result(&mut self, made: &Made, position: usize) -> Result<String> {
        let stage = self.graph.stage(made.id);
        let (tool, step) = (format!("#kind/{}", encoded(stage.kind)), format!("#step/{}", encoded(&stage.name)));
        let (action, control) = (format!("#run/{}", made.published.key), format!("#control/{}", encoded(&stage.name)));
        self.entities.add(
            &tool,
            json!({ "@type": "SoftwareApplication", "name": format!("caco stage kind {}", stage.kind), "softwareVersion": format!("{} (caco {})", stage.version, env!("CARGO_PKG_VERSION")) }),
        );
        self.entities.add(
            &step,
            json!({ "@type": "HowToStep", "name": stage.name, "position": (position + 1).to_string(), "workExample": reference(&tool) }),
        );
        self.entities.add(
            &control,
            json!({ "@type": "ControlAction", "name": format!("orchestrates {}", stage.name), "instrument": reference(&step), "object": reference(&action) }),
        );
        let mut results = vec![];
        for output in &*made.published.outputs {
            results.push(self.output(stage, made, output)?);
        }
        let objects = self.objects(made)?;
        let mut entity = json!({
            "@type": "CreateAction",
            "name": stage.name,
            "instrument": reference(&tool),
            "actionStatus": reference("http://schema.org/CompletedActionStatus"),
            "object": references(&objects),
            "result": references(&results),
        });
        if let Some(provenance) = &made.provenance {
            entity["startTime"] = provenance.run_details.metadata.started_on.clone().into();
            entity["endTime"] = provenance.run_details.metadata.finished_on.clone().into();
        }
        let papers = self.papers(stage, made, &action)?;
        entity["subjectOf"] = references(&papers);
        self.entities.add(&action, entity);
        Ok(action)
    }

    fn output(&mut self, stage: &caco_pipeline::pipeline::Stage, made: &Made, output: &Artifact) -> Result<String> {
        let declared = stage.outputs.iter().find(|o| *o.name == *output.name).map(|o| o.path.to_string());
        let path = format!("{}/{}", stage.name, declared.unwrap_or_else(|| METRICS_PATH.into()));
        let copied = output.size <= self.packing.largest;
        let slash = if output.folder { "/" } else { "" };
        let id = if copied {
            encoded(&path) + slash
        } else {
            format!("caco:{}/{}/{}{slash}", made.published.key, made.published.record, encoded(&output.name))
        };
        if copied {
            let to = self.to.join(&path);
            self.make_room(&to)?;
            self.store.export(output, &to)?;
            self.packed.copied += 1;
        } else {
            self.packed.described += 1;
        }
        let kind = if output.folder { "Dataset" } else { "File" };
        let mut entity = json!({
            "@type": kind,
            "name": format!("{}/{}", stage.name, output.name),
            "description": description(stage.kind, &output.name),
            "identifier": format!("blake3:{}", output.blake3),
        });
        if !output.folder {
            entity["contentSize"] = output.size.to_string().into();
            entity["sha256"] = output.sha256.to_string().into();
            entity["encodingFormat"] = format_of(&path).into();
        }
        self.entities.add(&id, entity);
        self.parts.push(id.clone());
        self.files.insert((made.published.key, output.name.to_string()), id.clone());
        Ok(id)
    }

    fn make_room(&self, to: &Path) -> Result<()> {
        let above = to.parent().unwrap_or(self.to);
        fs::create_dir_all(above).with_context(|| format!("cannot create {}", above.display()))
    }

    /// The objects of an action: outputs of others, outside data, parameters.
    fn objects(&mut self, made: &Made) -> Result<Vec<String>> {
        let mut objects = vec![];
        let Some(provenance) = &made.provenance else { return Ok(objects) };
        let definition = &provenance.build_definition;
        for dependency in definition.resolved_dependencies.iter().filter(|d| d.noted("slot").is_some()) {
            let key = dependency.noted("key").and_then(|key| key.parse::<Key>().ok());
            let known =
                key.zip(dependency.noted("output")).and_then(|(key, output)| self.files.get(&(key, output.into())));
            let id = known.cloned().unwrap_or_else(|| self.outside(dependency));
            if !objects.contains(&id) {
                objects.push(id);
            }
        }
        for (name, value) in definition.external_parameters.preimage.parameters.as_object().into_iter().flatten() {
            let id = format!("#parameter/{}/{}", made.published.key, encoded(name));
            let text = value.as_str().map_or_else(|| value.to_string(), String::from);
            self.entities.add(&id, json!({ "@type": "PropertyValue", "name": name, "value": text }));
            objects.push(id);
        }
        Ok(objects)
    }

    /// Data outside the store: identified by its digest, because its path is meaningless elsewhere.
    fn outside(&mut self, dependency: &Descriptor) -> String {
        let digest = dependency.blake3().map_or_else(|| dependency.name().to_string(), |digest| digest.to_string());
        let id = format!("#data/{digest}");
        let name = dependency.uri.as_deref().and_then(|uri| uri.rsplit('/').next()).unwrap_or(dependency.name());
        self.entities.add(
            &id,
            json!({ "@type": "PropertyValue", "name": name, "value": format!("blake3:{digest}"), "description": "data from outside the run, identified by the digest of its listing" }),
        );
        id
    }

    /// The attestation of a result, and its log.
    fn papers(&mut self, stage: &caco_pipeline::pipeline::Stage, made: &Made, action: &str) -> Result<Vec<String>> {
        let folder = self.store.record_folder(&made.published);
        let mut papers = vec![];
        for (file, name, format, what) in [
            (
                ATTESTATION,
                "attestation.json",
                "application/vnd.in-toto+json",
                "signed statement: in-toto, SLSA provenance, in a DSSE envelope",
            ),
            ("log", "log", "text/plain", "what the stage printed"),
        ] {
            let from = folder.join(file);
            if !from.exists() {
                continue;
            }
            let path = format!("{}/{name}", stage.name);
            let to = self.free(&path);
            self.make_room(&to)?;
            fs::copy(&from, &to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
            let id = encoded(&to.strip_prefix(self.to).unwrap_or(&to).to_string_lossy());
            let sum = Descriptor::of_file(name, &from).with_context(|| format!("cannot read {}", from.display()))?;
            self.entities.add(
                &id,
                json!({ "@type": "File", "name": format!("{} of {}", name, stage.name), "description": what, "encodingFormat": format, "sha256": sum.sha256(), "about": reference(action) }),
            );
            self.parts.push(id.clone());
            papers.push(id);
        }
        Ok(papers)
    }

    /// A path that no output uses.
    fn free(&self, path: &str) -> PathBuf {
        let mut to = self.to.join(path);
        while to.exists() {
            to.as_mut_os_string().push("_");
        }
        to
    }

    /// The run as a whole.
    fn run(&mut self, made: &[Made], workflow: &str, actions: &[String]) {
        let stages: Vec<String> = made.iter().map(|made| encoded(&self.graph.stage(made.id).name)).collect();
        let of = |prefix: &str| -> Vec<String> { stages.iter().map(|name| format!("{prefix}{name}")).collect() };
        let kinds: BTreeMap<&str, ()> = made.iter().map(|made| (self.graph.stage(made.id).kind, ())).collect();
        let tools: Vec<String> = kinds.keys().map(|kind| format!("#kind/{}", encoded(kind))).collect();
        let targets = self.graph.targets();
        let results: Vec<String> = made
            .iter()
            .filter(|made| targets.contains(&made.id))
            .flat_map(|made| made.published.outputs.iter().map(|o| (made.published.key, o.name.to_string())))
            .filter_map(|output| self.files.get(&output).cloned())
            .collect();
        let mut parameters = vec![];
        for id in &results {
            let parameter = format!("#output/{id}");
            let folder = id.ends_with('/');
            self.entities.add(
                &parameter,
                json!({
                    "@type": "FormalParameter", "name": id, "additionalType": if folder { "Dataset" } else { "File" },
                    "workExample": reference(id),
                    "conformsTo": reference("https://bioschemas.org/profiles/FormalParameter/1.0-RELEASE"),
                }),
            );
            self.entities.add(id, json!({ "exampleOfWork": reference(&parameter) }));
            parameters.push(parameter);
        }
        if !parameters.is_empty() {
            self.entities.add(
                "https://bioschemas.org/profiles/FormalParameter/1.0-RELEASE",
                json!({ "@type": "CreativeWork", "name": "FormalParameter", "version": "1.0" }),
            );
        }
        self.entities.add(
            workflow,
            json!({ "hasPart": references(&tools), "step": references(&of("#step/")), "output": references(&parameters) }),
        );
        let times = |of: fn(&Provenance) -> &String| {
            made.iter().filter_map(|m| m.provenance.as_ref()).map(of).cloned().collect::<Vec<_>>()
        };
        let began = times(|p| &p.run_details.metadata.started_on).into_iter().min();
        let ended = times(|p| &p.run_details.metadata.finished_on).into_iter().max();
        let mut run = json!({
            "@type": "CreateAction", "name": format!("run of {}", self.graph.pipeline.name),
            "instrument": reference(workflow), "result": references(&results),
            "actionStatus": reference("http://schema.org/CompletedActionStatus"),
        });
        for (name, time) in [("startTime", began), ("endTime", ended)] {
            if let Some(time) = time {
                run[name] = time.into();
            }
        }
        self.entities.add("#run", run);
        self.entities.add(
            "#organize",
            json!({
                "@type": "OrganizeAction", "name": format!("caco ran {} stages", actions.len()),
                "instrument": reference("#caco"), "object": references(&of("#control/")), "result": reference("#run"),
            }),
        );
    }
}

fn description(kind: &str, output: &str) -> String {
    if output == METRICS {
        format!("metrics of a stage of kind {kind}")
    } else {
        format!("output {output} of a stage of kind {kind}")
    }
}

fn format_of(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("json") => "application/json",
        Some("jsonl") => "application/jsonl",
        Some("csv") => "text/csv",
        Some("md") => "text/markdown",
        Some("tex") => "application/x-tex",
        Some("safetensors") => "application/vnd.safetensors",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_made_part_of_a_uri() {
        assert_eq!(encoded("linear/10% é"), "linear/10%25%20%C3%A9");
    }

    #[test]
    fn an_entity_gathers_its_properties() {
        let mut entities = Entities::default();
        entities.add("a", json!({ "name": "x" }));
        entities.add("b", json!({}));
        entities.add("a", json!({ "size": 1 }));
        assert_eq!(entities.graph(), [json!({ "@id": "a", "name": "x", "size": 1 }), json!({ "@id": "b" })]);
    }
}
