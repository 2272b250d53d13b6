//! A figure to attach to a paper: the measurement, and the attestation of every step that led to it, as JSON lines of
//! DSSE envelopes (an in-toto bundle). A reader who trusts the key can check it all without the store.

use super::{
    audit::Report,
    envelope::{Envelope, Verdict},
    evidence::{Evidence, provenance},
    keyring::{Signer, Trust},
    statement::{Descriptor, Provenance, Statement, identifier},
};
use anyhow::{Context, Result, ensure};
use caco_engine::{key::Key, store::Store};
use caco_measure::metric::Metric;
use serde::{Deserialize, Serialize};
use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

/// The predicate type of a citation, documented on the page of the parent module.
pub const CITATION: &str = identifier!("citation-v1");

/// A cited figure.
#[derive(Clone, Debug, PartialEq, Serialize, schemars::JsonSchema, Deserialize)]
pub struct Cited {
    /// Its name: a line, an evaluation and a metric, or a stage and a metric.
    pub figure: String,
    /// The measurement.
    pub measured: Metric,
    /// The results that it was measured in.
    pub results: Vec<Key>,
    /// All results that led to it, in topological order.
    pub chain: Vec<Key>,
    /// Whether the audit passed when it was cited.
    pub audited: bool,
}

/// The lines of the file: the citation, then the statement of every step.
pub fn bundle(store: &Store, cited: &Cited, signer: &Signer) -> Result<String> {
    let mut subject = vec![];
    for key in &cited.results {
        let evidence = Evidence::of(store, *key)?.with_context(|| format!("key {key} has no result"))?;
        let outputs = evidence.manifest()?.outputs;
        let name = |o: &caco_engine::store::Artifact| format!("{}/{}", key.0.short(), o.name);
        subject.extend(outputs.iter().map(|o| Descriptor::named(name(o)).digests(o.blake3, o.sha256)));
    }
    let statement = Statement::new(CITATION, subject, cited.clone());
    let mut text = Envelope::seal(statement.text().as_bytes(), signer).text() + "\n";
    for key in &cited.chain {
        let evidence = Evidence::of(store, *key)?.with_context(|| format!("key {key} has no result"))?;
        let envelope = evidence.envelope()?.with_context(|| format!("the result of key {key} is unsigned"))?;
        text += &(envelope.text() + "\n");
    }
    Ok(text)
}

/// The keys of the results of a report, in topological order.
pub fn chain(report: &Report) -> Vec<Key> {
    report.nodes.iter().filter_map(|node| node.key).collect()
}

/// The outcome of checking a bundle without a store.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct Checked {
    /// The citation.
    pub cited: Cited,
    /// The signers' names in the keyring.
    pub signers: Vec<String>,
    /// Statements read.
    pub statements: usize,
    /// The failed checks.
    pub faults: Vec<String>,
}

/// Whether a file is a bundle, which begins with an envelope.
pub fn is_bundle(path: &Path) -> bool {
    let text = std::fs::read(path).unwrap_or_default();
    text.split(|b| *b == b'\n').next().is_some_and(|line| Envelope::parse(line).is_ok())
}

/// The statement of each step, with its line.
type Steps = HashMap<Key, (usize, Statement<Provenance>)>;

fn source_of(dependency: &Descriptor) -> Option<Key> {
    dependency.noted("key")?.parse().ok()
}

/// These results and all that they were computed from.
fn reached(results: &[Key], steps: &Steps) -> HashSet<Key> {
    let (mut open, mut seen) = (results.to_vec(), HashSet::new());
    while let Some(key) = open.pop() {
        if seen.insert(key)
            && let Some((_, statement)) = steps.get(&key)
        {
            open.extend(statement.predicate.build_definition.resolved_dependencies.iter().filter_map(source_of));
        }
    }
    seen
}

/// Checks a bundle: every signature, every key against its preimage, and that each input of a step is an output of
/// another step or outside data.
pub fn check(text: &str, trust: &Trust) -> Result<Checked> {
    let mut lines = text.lines();
    let first = Envelope::parse(lines.next().unwrap_or_default().as_bytes()).context("line 1")?;
    let cited = Statement::<Cited>::parse(&first.payload()?, CITATION).context("line 1")?;
    let (mut faults, mut signers) = (vec![], HashSet::new());
    let mut judge = |n: usize, envelope: &Envelope, faults: &mut Vec<String>| match envelope.verify(trust) {
        Ok(Verdict::Trusted(known)) => drop(signers.insert(known.name.clone())),
        Ok(Verdict::Stranger(id)) => {
            faults.push(format!("line {n}: signed by the key {}, which is not trusted here", &id[..id.len().min(16)]));
        }
        Ok(Verdict::Broken(known)) => faults.push(format!("line {n}: it is not what the key '{}' signed", known.name)),
        Ok(Verdict::Unsigned) => faults.push(format!("line {n}: it has no signature")),
        Err(error) => faults.push(format!("line {n}: {error:#}")),
    };
    judge(1, &first, &mut faults);
    let mut steps = Steps::new();
    for (i, line) in lines.enumerate() {
        let n = i + 2;
        let envelope = Envelope::parse(line.as_bytes()).with_context(|| format!("line {n}"))?;
        judge(n, &envelope, &mut faults);
        let statement = provenance(&envelope).with_context(|| format!("line {n}"))?;
        let external = &statement.predicate.build_definition.external_parameters;
        if external.preimage.key() != external.key {
            faults.push(format!("line {n}: its key is not the digest of its preimage"));
        }
        steps.insert(external.key, (n, statement));
    }
    ensure!(!steps.is_empty(), "it has no steps");
    let needed = reached(&cited.predicate.results, &steps);
    for (key, (n, statement)) in &steps {
        let definition = &statement.predicate.build_definition;
        let stated: HashMap<&str, &Descriptor> =
            definition.resolved_dependencies.iter().filter_map(|d| Some((d.noted("slot")?, d))).collect();
        for (slot, digest) in &definition.external_parameters.preimage.inputs {
            let Some(dependency) = stated.get(slot.as_str()) else {
                faults.push(format!("line {n}: the source of its input {slot} is unknown"));
                continue;
            };
            let source = source_of(dependency);
            // The steps of other figures in the same table are left out.
            let whole = needed.contains(key);
            let made = |key: &Key| {
                steps.get(key).is_some_and(|(_, source)| source.subject.iter().any(|s| s.blake3() == Some(*digest)))
            };
            if dependency.blake3() != Some(*digest) {
                faults.push(format!("line {n}: its input {slot} does not match its key"));
            } else if source.is_some_and(|source| !made(&source) && (whole || steps.contains_key(&source))) {
                faults.push(format!("line {n}: no step here wrote its input {slot}"));
            }
        }
    }
    for key in &cited.predicate.results {
        let known = steps.get(key).map(|(_, step)| &step.subject);
        let holds =
            known.is_some_and(|outputs| outputs.iter().all(|o| cited.subject.iter().any(|s| s.digest == o.digest)));
        if !holds {
            faults.push(format!("line 1: the outputs of {} are not those that its step wrote", key.0.short()));
        }
    }
    let mut signers: Vec<String> = signers.into_iter().collect();
    signers.sort();
    faults.sort();
    Ok(Checked { cited: cited.predicate, signers, statements: steps.len() + 1, faults })
}
