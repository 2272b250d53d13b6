//! What is checked of one result. Each check tells where it looked, what it found, and what should be.

use super::{
    audit::{Auditor, Case, Check, From, Signed, State, digest_of, fail, signature as signature_of},
    evidence::{self, Evidence},
    figures,
    keyring::Trust,
    rerun,
    statement::{BUILD_TYPE, BUILDER, Descriptor, Provenance, Statement, is_identifier},
};
use anyhow::Result;
use caco_engine::{
    digest::Digest,
    graph::METRICS,
    key::{self, Preimage},
    listing::Listing,
    store::{Artifact, Manifest},
};
use caco_measure::predictions::Predictions;

use rayon::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

/// Counts what is read.
#[derive(Default)]
pub(super) struct Counter {
    files: AtomicU64,
    bytes: AtomicU64,
}

impl Counter {
    fn add(&self, bytes: u64) {
        self.files.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> (u64, u64) {
        (self.files.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }
}

/// The texts of a record, which other checks look at.
const TEXTS: [&str; 3] = ["preimage.json", "record.json", "manifest.json"];

/// No more faults of one kind than this are told of one result.
const TOLD: usize = 3;

/// One check: a word on what holds, or everything that does not.
fn check(name: &'static str, faults: Vec<String>, told: impl FnOnce() -> String) -> Check {
    if faults.is_empty() {
        return Check { check: name, state: State::Pass, told: told() };
    }
    let more = faults.len().saturating_sub(TOLD);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    fail(name, faults.into_iter().take(TOLD).collect::<Vec<_>>().join("; ") + &more)
}

fn collected(name: &'static str) -> Check {
    Check { check: name, state: State::Collected, told: "the bytes were collected by `caco cache gc`".into() }
}

/// Whether a record holds by itself: signature, texts, log and by-products. Neither outputs nor inputs are looked at.
pub(super) fn record_holds(evidence: Evidence, trust: &Trust) -> bool {
    let (signed, statement) = signature_of(&evidence, trust);
    let Some(said) = &statement else { return false };
    let case = Case { key: Some(evidence.key), statement: statement.clone(), signed, ..Case::default() };
    let checks = [
        Some(signature(&case, &evidence)),
        Some(statement_fits(&case, &evidence, said)),
        Some(record(&case, &evidence)),
        Some(key_fits(&case, &evidence)),
        byproducts(&case, &evidence).unwrap_or_else(|error| Some(fail("log", error.to_string()))),
    ];
    checks.iter().flatten().all(|check| check.state == State::Pass)
}

/// Everything that is checked of a result.
pub(super) fn all(auditor: &Auditor, case: &Case, counter: &Counter) -> Result<Vec<Check>> {
    let mut checks = case.wrong.clone();
    let Some(evidence) = &case.evidence else {
        if checks.is_empty() {
            let told = "it is gone: there is no such result, and none was collected; somebody removed it".into();
            checks.push(fail("record", told));
        }
        return Ok(checks);
    };
    checks.push(signature(case, evidence));
    checks.extend(case.statement.as_ref().map(|statement| statement_fits(case, evidence, statement)));
    checks.push(record(case, evidence));
    checks.push(key_fits(case, evidence));
    checks.extend(case.asked.as_ref().map(|asked| pipeline(evidence, asked)));
    checks.push(inputs(auditor, case, evidence));
    if evidence.collected {
        checks.push(collected("outputs"));
        return Ok(checks);
    }
    let outputs = outputs(auditor, case, counter);
    // Nothing is computed from bytes that are not what they should be.
    let sound = outputs.state == State::Pass;
    checks.push(outputs);
    checks.extend(byproducts(case, evidence)?);
    checks.extend(sound.then(|| figures(auditor, case)).flatten());
    checks.extend(reruns(auditor, evidence)?);
    if !evidence.others.is_empty() {
        let others = evidence.others.join(", ");
        let told = format!("other records of other bytes stand under this key: {others}; see `caco divergences`");
        checks.push(Check { check: "divergence", state: State::Note, told });
    }
    Ok(checks)
}

fn signature(case: &Case, evidence: &Evidence) -> Check {
    let place = evidence.place(caco_engine::store::ATTESTATION);
    let faults = match &case.signed {
        Signed::Trusted(name) => return check("signature", vec![], || format!("signed by {name}")),
        Signed::Unsigned => format!("{}: unsigned (made by an older caco, or the file was removed)", place.display()),
        Signed::Broken(why) => format!("{}: {why}", place.display()),
        Signed::Stranger { id, holds: false, .. } => {
            format!("{}: not signed by the key {} that it names", place.display(), &id[..id.len().min(16)])
        }
        Signed::Stranger { id, host, .. } => {
            let id = &id[..id.len().min(16)];
            format!(
                "{}: signed by the key {id}, made on '{host}', which is not trusted here; if you know whose it is: caco \
                 keys trust {id}",
                place.display()
            )
        }
    };
    check("signature", vec![faults], String::new)
}

/// The statement is about this very record.
fn statement_fits(case: &Case, evidence: &Evidence, statement: &Statement<Provenance>) -> Check {
    let (place, mut faults) = (evidence.place(caco_engine::store::ATTESTATION), vec![]);
    let Provenance { build_definition: definition, run_details: details } = &statement.predicate;
    if !is_identifier(&definition.build_type, BUILD_TYPE) {
        faults.push(format!("{}: build type '{}' is not '{BUILD_TYPE}'", place.display(), definition.build_type));
    }
    if !is_identifier(&details.builder.id, BUILDER) {
        faults.push(format!("{}: builder '{}' is not '{BUILDER}'", place.display(), details.builder.id));
    }
    let external = &definition.external_parameters;
    if external.key != evidence.key {
        let told = format!("{}: it speaks of key {}, not {}", place.display(), external.key, evidence.key);
        faults.push(told + "; the record was moved here from another key");
    }
    if external.preimage.key() != external.key {
        faults.push(format!("{}: its key is not the digest of its own preimage", place.display()));
    }
    match evidence::stated(statement) {
        Err(error) => faults.push(format!("{}: {error:#}", place.display())),
        Ok(stated) => {
            if let Ok(manifest) = evidence.manifest() {
                faults.extend(differing(&stated, &manifest, &evidence.place("manifest.json")));
            }
        }
    }
    check("statement", faults, || format!("{} outputs as signed", case.outputs.len()))
}

/// Where a manifest says otherwise than what was signed.
fn differing(stated: &[Artifact], manifest: &Manifest, place: &Path) -> Vec<String> {
    let place = place.display();
    let by_name = |outputs: &[Artifact]| -> BTreeMap<String, Artifact> {
        outputs.iter().map(|o| (o.name.to_string(), Artifact { length: 0, ..o.clone() })).collect()
    };
    let (stated, found) = (by_name(stated), by_name(&manifest.outputs));
    let names: BTreeSet<&String> = stated.keys().chain(found.keys()).collect();
    let told = |name: &&String| match (stated.get(*name), found.get(*name)) {
        (Some(a), Some(b)) if a == b => None,
        (Some(a), Some(b)) if a.blake3 != b.blake3 => {
            Some(format!("{place}: output {name} is {} there, {} was signed", b.blake3.short(), a.blake3.short()))
        }
        (Some(_), Some(_)) => Some(format!("{place}: output {name} has another SHA-256, size or form than was signed")),
        (Some(_), None) => Some(format!("{place}: output {name}, which was signed, is not in it")),
        (None, _) => Some(format!("{place}: output {name} is in it, and was not signed")),
    };
    names.iter().filter_map(told).collect()
}

/// The record's own texts agree with one another, and with what was signed.
fn record(case: &Case, evidence: &Evidence) -> Check {
    let place = evidence.place("manifest.json");
    let mut faults = vec![];
    if let Some(named) = &evidence.dangling {
        let current = evidence.place("").with_file_name("current");
        faults.push(format!("{} names the record {named}, which is not there", current.display()));
    }
    match evidence.manifest() {
        Err(error) => faults.push(format!("{}: {error:#}", place.display())),
        Ok(manifest) => {
            if manifest.key != evidence.key {
                faults.push(format!("{}: it belongs to key {}, not {}", place.display(), manifest.key, evidence.key));
            }
            if manifest.record() != evidence.record {
                let told = format!("{}: its outputs are those of record {}", place.display(), manifest.record());
                faults.push(format!("{told}, not {}", evidence.record));
            }
        }
    }
    if let Some(statement) = &case.statement {
        let texts = ["record.json", "manifest.json"];
        faults.extend(texts.iter().filter_map(|name| file_differs(statement, evidence, name)));
    }
    check("record", faults, || evidence.record.to_string())
}

/// Where a file of the record is not what was signed.
fn file_differs(statement: &Statement<Provenance>, evidence: &Evidence, name: &str) -> Option<String> {
    let place = evidence.place(name);
    let signed = statement.predicate.run_details.byproducts.iter().find(|file| file.name() == name);
    let Some(signed) = signed else { return Some(format!("{}: nothing was signed about it", place.display())) };
    match evidence.read(name) {
        Err(error) => Some(format!("{error:#}")),
        Ok(None) => Some(format!("{} is missing", place.display())),
        Ok(Some(bytes)) if Descriptor::of_bytes(name, &bytes).digest != signed.digest => {
            Some(format!("{}: its bytes are not those that were signed", place.display()))
        }
        Ok(Some(_)) => None,
    }
}

/// The key is the digest of the preimage, and the preimage is the one that was signed.
fn key_fits(case: &Case, evidence: &Evidence) -> Check {
    let place = evidence.place("preimage.json");
    let text = match evidence.read("preimage.json") {
        Ok(Some(text)) => text,
        Ok(None) => return fail("key", format!("{} is missing", place.display())),
        Err(error) => return fail("key", format!("{error:#}")),
    };
    let found = Digest::of(&text);
    if found != evidence.key.0 {
        let told =
            format!("{}: its digest is {}, not the key {}", place.display(), found.short(), evidence.key.0.short());
        return fail("key", told);
    }
    let signed = case.statement.as_ref().map(|s| &s.predicate.build_definition.external_parameters.preimage);
    let signed = signed.map(|preimage| serde_json::to_string(preimage).expect("a preimage is JSON"));
    let faults = match signed {
        Some(signed) if signed.as_bytes() != text => {
            vec![format!("{}: it is not the preimage that was signed", place.display())]
        }
        _ => vec![],
    };
    check("key", faults, || format!("{} is the digest of its preimage", evidence.key.0.short()))
}

/// The preimage is what the pipeline asks for.
fn pipeline(evidence: &Evidence, asked: &str) -> Check {
    let found = evidence.read("preimage.json").ok().flatten().unwrap_or_default();
    let faults = if key::of_text(asked) == evidence.key && found == asked.as_bytes() {
        vec![]
    } else {
        vec![format!("{}: it is not what the pipeline asks for", evidence.place("preimage.json").display())]
    };
    check("pipeline", faults, || "what the pipeline asks for".into())
}

/// Every input is an output of a result that is checked too, or files that still hold what they held.
fn inputs(auditor: &Auditor, case: &Case, evidence: &Evidence) -> Check {
    let text = evidence.read("preimage.json").ok().flatten().unwrap_or_default();
    let preimage = serde_json::from_slice::<Preimage>(&text).ok();
    let mut wanted = preimage.as_ref().map(|preimage| preimage.inputs.clone()).unwrap_or_default();
    let (mut faults, mut grown) = (vec![], vec![]);
    for input in &case.inputs {
        let slot = &input.slot;
        let asked = wanted.remove(slot);
        if let (Some(asked), Some(stated)) = (asked, input.stated)
            && asked != stated
        {
            faults.push(format!("input {slot}: {} was signed, the preimage says {}", stated.short(), asked.short()));
        }
        let Some(expected) = asked.or(input.stated) else { continue };
        let Some(told) = source_differs(auditor, input, expected) else { continue };
        match preimage.as_ref().and_then(|preimage| listed_images_hold(auditor, case, input, preimage)) {
            Some(folder) => grown.push(folder.display().to_string()),
            None => faults.push(format!("input {slot}: {told}")),
        }
    }
    let without = wanted
        .iter()
        .map(|(slot, digest)| format!("input {slot} ({}): nothing tells where it came from", digest.short()));
    faults.extend(without);
    check("inputs", faults, || match (case.inputs.len(), grown.as_slice()) {
        (0, _) => "it reads nothing".into(),
        (1, []) => "1 input".into(),
        (n, []) => format!("{n} inputs"),
        (_, grown) => {
            format!("{} holds other files than then, but the same is read of it", grown.join(", "))
        }
    })
}

/// The folder of this input, if it is one of images: other files have come into it, or gone, but what was made of it would come out the
/// same. Only the experiment's own kinds say by an index what they read of a folder.
fn listed_images_hold<'a>(
    auditor: &Auditor,
    case: &Case,
    input: &'a super::audit::Input,
    preimage: &Preimage,
) -> Option<&'a Path> {
    let From::Data { path, found: Ok(Some(found)) } = &input.from else { return None };
    if auditor.registry.find(&preimage.kind).is_some_and(|kind| kind.command) {
        return None;
    }
    let holds = match input.slot.strip_suffix(".images") {
        Some(slot) => auditor.images.hold(auditor.store, *preimage.inputs.get(slot)?, path, auditor.cache),
        None => index(&case.outputs).is_some() && listed_again(auditor, case, *found, preimage),
    };
    holds.then_some(path)
}

/// Whether the folder was listed again as it is now, by the same code with the same parameters, with the same outcome. Annotations
/// count, and images that came.
fn listed_again(auditor: &Auditor, case: &Case, now: Digest, preimage: &Preimage) -> bool {
    let mut again = preimage.clone();
    again.inputs.insert("root".into(), now);
    let key = key::of_text(&serde_json::to_string(&again).expect("a preimage is JSON"));
    let Ok(Some(evidence)) = Evidence::of(auditor.store, key) else { return false };
    let (Signed::Trusted(_), Some(statement)) = signature_of(&evidence, auditor.trust) else { return false };
    statement.predicate.build_definition.external_parameters.key == key
        && evidence::stated(&statement).is_ok_and(|outputs| index(&outputs) == index(&case.outputs))
}

fn index(outputs: &[Artifact]) -> Option<Digest> {
    outputs.iter().find(|output| *output.name == *"index").map(|output| output.blake3)
}

/// Where the source of an input is not of this digest.
fn source_differs(auditor: &Auditor, input: &super::audit::Input, expected: Digest) -> Option<String> {
    match &input.from {
        From::Nowhere => Some(format!("no result here has an output {}", expected.short())),
        From::Data { path, found: Err(error) } => Some(format!("{}: {error}", path.display())),
        From::Data { path, found: Ok(None) } => Some(format!("{} is not there", path.display())),
        From::Data { path, found: Ok(Some(found)) } if *found != expected => Some(format!(
            "{} now holds {}, and held {} when it was read",
            path.display(),
            found.short(),
            expected.short()
        )),
        From::Data { .. } => None,
        From::Output { case, output } => {
            let source = &auditor.cases[*case];
            let name = |what: &str| if what.is_empty() { "a result without a name" } else { what }.to_string();
            if source.evidence.is_none() {
                let key = source.key.map_or("unknown".into(), |key| key.0.short());
                return Some(format!("{output} of {} (key {key}) is gone", name(&source.stage)));
            }
            match source.outputs.iter().find(|o| *o.name == **output) {
                Some(found) if found.blake3 == expected => None,
                Some(found) => Some(format!(
                    "{}/{output} is {}, and {} was read",
                    name(&source.stage),
                    found.blake3.short(),
                    expected.short()
                )),
                None => Some(format!("{} has no output {output}", name(&source.stage))),
            }
        }
    }
}

/// The bytes of every output.
fn outputs(auditor: &Auditor, case: &Case, counter: &Counter) -> Check {
    let found: Vec<String> =
        case.outputs.par_iter().flat_map(|output| output_differs(auditor, output, counter)).collect();
    check("outputs", found, || {
        let bytes: u64 = case.outputs.iter().map(|o| o.size).sum();
        format!(
            "{} of {bytes} bytes",
            if case.outputs.len() == 1 { "1 output".into() } else { format!("{} outputs", case.outputs.len()) }
        )
    })
}

fn output_differs(auditor: &Auditor, output: &Artifact, counter: &Counter) -> Vec<String> {
    let store = auditor.store;
    let object = |digest: Digest, size: Option<u64>, what: &str| {
        let path = store.object(digest);
        if !path.exists() {
            return Some(format!("{what}: {} is missing", path.display()));
        }
        match digest_of(&path, auditor.cache) {
            Err(error) => Some(format!("{what}: {error:#}")),
            Ok((found, length)) => {
                counter.add(length);
                if found != digest {
                    Some(format!("{what}: the bytes of {} have the digest {}", path.display(), found.short()))
                } else {
                    let told = || {
                        format!(
                            "{what}: {} has {length} bytes, {} were signed",
                            path.display(),
                            size.unwrap_or_default()
                        )
                    };
                    size.filter(|size| *size != length).map(|_| told())
                }
            }
        }
    };
    let own = object(output.blake3, (!output.folder).then_some(output.size), &output.name);
    if own.is_some() || !output.folder {
        return own.into_iter().collect();
    }
    let path = store.object(output.blake3);
    let listing = fs::read_to_string(&path).ok().and_then(|text| Listing::parse(&text).ok());
    let Some(listing) = listing else { return vec![format!("{}: {} is no listing", output.name, path.display())] };
    let tree = store.root().join("trees").join(output.blake3.to_string());
    let tree = tree.exists().then_some(tree);
    let file = |file: &caco_engine::listing::Entry| {
        let what = format!("{}/{}", output.name, file.path);
        let differs = object(file.digest, Some(file.size), &what);
        differs.or_else(|| linked_differs(auditor, &tree.as_ref()?.join(&file.path), file.digest, &what))
    };
    listing.files.par_iter().filter_map(file).collect()
}

/// A folder that was put together from its objects is what later stages read: its files must be the objects.
fn linked_differs(auditor: &Auditor, path: &Path, object: Digest, what: &str) -> Option<String> {
    let number = |path: &Path| fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    let found = number(path);
    if found.is_some() && found == number(&auditor.store.object(object)) {
        return None;
    }
    match digest_of(path, auditor.cache) {
        Ok((found, _)) if found == object => None,
        Ok((found, _)) => Some(format!("{what}: the bytes of {} have the digest {}", path.display(), found.short())),
        Err(error) => Some(format!("{what}: {error:#}")),
    }
}

/// The log and what else was kept beside the outputs.
fn byproducts(case: &Case, evidence: &Evidence) -> Result<Option<Check>> {
    let Some(statement) = &case.statement else { return Ok(None) };
    let signed: BTreeSet<&str> = statement.predicate.run_details.byproducts.iter().map(Descriptor::name).collect();
    let found = evidence.names()?;
    let mut faults: Vec<String> = signed
        .iter()
        .filter(|name| !TEXTS.contains(name))
        .filter_map(|name| file_differs(statement, evidence, name))
        .collect();
    let extra = found.iter().filter(|name| !signed.contains(name.as_str()));
    faults.extend(extra.map(|name| format!("{}: nothing was signed about it", evidence.place(name).display())));
    let n = signed.len() - signed.iter().filter(|name| TEXTS.contains(name)).count();
    Ok(Some(check("log", faults, || if n > 1 { format!("log and {} by-products", n - 1) } else { "log".into() })))
}

/// Figures follow from the stored predictions, and a comparison from those.
fn figures(auditor: &Auditor, case: &Case) -> Option<Check> {
    let object = |name: &str| {
        let output = case.outputs.iter().find(|o| *o.name == *name && !o.folder)?;
        Some(auditor.store.object(output.blake3))
    };
    let kind = auditor.registry.find(&case.kind);
    if kind.is_some_and(|kind| kind.comparison) {
        let signed =
            case.statement.as_ref().map(|s| s.predicate.build_definition.external_parameters.parameters.to_string());
        let parameters = signed.or_else(|| case.parameters.clone())?;
        let input = |slot: &str| {
            let input = case.inputs.iter().find(|input| input.slot == slot)?;
            let From::Output { case, output } = &input.from else { return None };
            let output = auditor.cases[*case].outputs.iter().find(|o| *o.name == **output)?;
            let path = auditor.store.object(output.blake3);
            digest_of(&path, auditor.cache).is_ok_and(|(found, _)| found == output.blake3).then_some(path)
        };
        return Some(told(figures::comparison(&parameters, &input, &object)));
    }
    let (predictions, metrics) =
        (object("predictions").or_else(|| object("predictions.safetensors"))?, object(METRICS)?);
    // Somebody else's program may call anything predictions.
    if kind.is_some_and(|kind| kind.command) && Predictions::read(&predictions).is_err() {
        return None;
    }
    Some(told(figures::metrics(&predictions, &metrics)))
}

/// What trusted reruns of the result showed.
fn reruns(auditor: &Auditor, evidence: &Evidence) -> Result<Option<Check>> {
    let found = rerun::verdicts(auditor.store, evidence.key, auditor.trust)?;
    if found.is_empty() {
        return Ok(None);
    }
    let count = |result: &str| found.iter().filter(|verdict| verdict.result == result).count();
    let (same, near) = (count("PASSED"), count("WARNED"));
    let state = if same == found.len() { State::Pass } else { State::Note };
    let told = format!(
        "{} by the signed test results: {same} with identical bytes, {near} within the tolerance, {} otherwise",
        if found.len() == 1 { "1 rerun".into() } else { format!("{} reruns", found.len()) },
        found.len() - same - near
    );
    Ok(Some(Check { check: "rerun", state, told }))
}

fn told(found: Result<String, Vec<String>>) -> Check {
    match found {
        Ok(told) => Check { check: "figures", state: State::Pass, told },
        Err(faults) => check("figures", faults, String::new),
    }
}
