//! The checks of one result. Each reports where it looked, what it found, and what it expected.

use super::{
    audit::{Auditor, Case, Check, InputSource, Signed, State, digest_of, fail, signature as signature_of},
    evidence::{self, Evidence},
    figures,
    keyring::Trust,
    rerun,
    statement::{BUILD_TYPE, BUILDER, Descriptor, Provenance, Statement, is_identifier},
};
use anyhow::Result;
use caco_engine::{
    digest::Digest,
    environment,
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

/// Counts the files and bytes read.
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

/// The texts of a record, which other checks cover.
const TEXTS: [&str; 3] = ["preimage.json", "record.json", "manifest.json"];

/// The maximum number of faults of one kind to report for one result.
const REPORTED: usize = 3;

/// Creates a check from its faults, or with this message if there are none.
fn check(name: &'static str, faults: Vec<String>, message: impl FnOnce() -> String) -> Check {
    if faults.is_empty() {
        return Check { check: name, state: State::Pass, message: message() };
    }
    let more = faults.len().saturating_sub(REPORTED);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    fail(name, faults.into_iter().take(REPORTED).collect::<Vec<_>>().join("; ") + &more)
}

fn collected(name: &'static str) -> Check {
    Check { check: name, state: State::Collected, message: "the bytes were collected by `caco cache gc`".into() }
}

/// Whether a record is valid by itself: signature, texts, log and by-products. Checks neither outputs nor inputs.
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

/// Runs all checks of a result.
pub(super) fn all(auditor: &Auditor, case: &Case, counter: &Counter) -> Result<Vec<Check>> {
    let mut checks = case.wrong.clone();
    let Some(evidence) = &case.evidence else {
        if checks.is_empty() {
            let message = "there is no such result, and none was collected; it was removed by hand".into();
            checks.push(fail("record", message));
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
    // Nothing is computed from damaged bytes.
    let sound = outputs.state == State::Pass;
    checks.push(outputs);
    checks.extend(byproducts(case, evidence)?);
    checks.extend(sound.then(|| figures(auditor, case)).flatten());
    checks.extend(reruns(auditor, evidence)?);
    checks.extend(environment(evidence));
    checks.extend(edited(evidence));
    if !evidence.others.is_empty() {
        let others = evidence.others.join(", ");
        let message = format!("this key also has records of different bytes: {others}; see `caco divergences`");
        checks.push(Check { check: "divergence", state: State::Note, message });
    }
    Ok(checks)
}

/// Files that were edited between the end of the program and the collection of its outputs.
fn edited(evidence: &Evidence) -> Option<Check> {
    let made = evidence.made();
    let edited = made["collected_later"]["edited"].as_array().filter(|edited| !edited.is_empty())?;
    let files: Vec<&str> = edited.iter().filter_map(|file| file.as_str()).collect();
    let message = format!("edited after its program ended, before they were collected: {}", files.join(", "));
    Some(Check { check: "edited", state: State::Note, message })
}

/// The caller's variables that choose kernels. `None` if there was none, or the record is older than these notes.
fn environment(evidence: &Evidence) -> Option<Check> {
    let made = evidence.made();
    let noted = made["conditions"]["environment"].as_object()?;
    let chose = noted.iter().filter(|(name, _)| environment::chooses_kernels(name));
    let chose: Vec<String> = chose.map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or("?"))).collect();
    let message = format!("it ran with {}, which chooses kernels", chose.join(", "));
    (!chose.is_empty()).then_some(Check { check: "environment", state: State::Note, message })
}

fn signature(case: &Case, evidence: &Evidence) -> Check {
    let place = evidence.place(caco_engine::store::ATTESTATION);
    let faults = match &case.signed {
        Signed::Trusted(name) => return check("signature", vec![], || format!("signed by {name}")),
        Signed::Unsigned => {
            format!("{}: unsigned (written by an older caco, or the file was removed)", place.display())
        }
        Signed::Broken(why) => format!("{}: {why}", place.display()),
        Signed::Stranger { id, holds: false, .. } => {
            format!("{}: not signed by the key {} that it names", place.display(), &id[..id.len().min(16)])
        }
        Signed::Stranger { id, host, .. } => {
            let id = &id[..id.len().min(16)];
            format!(
                "{}: signed by the key {id} from '{host}', which is not trusted here; if you know its owner: caco \
                 signer trust {id}",
                place.display()
            )
        }
    };
    check("signature", vec![faults], String::new)
}

/// Checks that the statement is about this record.
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
        let fault = format!("{}: it is about key {}, not {}", place.display(), external.key, evidence.key);
        faults.push(fault + "; the record was moved here from another key");
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

/// The differences between a manifest and what was signed.
fn differing(stated: &[Artifact], manifest: &Manifest, place: &Path) -> Vec<String> {
    let place = place.display();
    let by_name = |outputs: &[Artifact]| -> BTreeMap<String, Artifact> {
        outputs.iter().map(|o| (o.name.to_string(), Artifact { length: 0, ..o.clone() })).collect()
    };
    let (stated, found) = (by_name(stated), by_name(&manifest.outputs));
    let names: BTreeSet<&String> = stated.keys().chain(found.keys()).collect();
    let difference = |name: &&String| match (stated.get(*name), found.get(*name)) {
        (Some(a), Some(b)) if a == b => None,
        (Some(a), Some(b)) if a.blake3 != b.blake3 => {
            Some(format!("{place}: output {name} is {}, but {} was signed", b.blake3.short(), a.blake3.short()))
        }
        (Some(_), Some(_)) => Some(format!("{place}: output {name} has another SHA-256, size or type than was signed")),
        (Some(_), None) => Some(format!("{place}: output {name} was signed, but is missing")),
        (None, _) => Some(format!("{place}: output {name} was not signed")),
    };
    names.iter().filter_map(difference).collect()
}

/// Checks that the record's own texts agree with each other, and with what was signed.
fn record(case: &Case, evidence: &Evidence) -> Check {
    let place = evidence.place("manifest.json");
    let mut faults = vec![];
    if let Some(named) = &evidence.dangling {
        let current = evidence.place("").with_file_name("current");
        faults.push(format!("{} names the record {named}, which does not exist", current.display()));
    }
    match evidence.manifest() {
        Err(error) => faults.push(format!("{}: {error:#}", place.display())),
        Ok(manifest) => {
            if manifest.key != evidence.key {
                faults.push(format!("{}: it belongs to key {}, not {}", place.display(), manifest.key, evidence.key));
            }
            if manifest.record() != evidence.record {
                let fault = format!("{}: its outputs are those of record {}", place.display(), manifest.record());
                faults.push(format!("{fault}, not {}", evidence.record));
            }
        }
    }
    if let Some(statement) = &case.statement {
        let texts = ["record.json", "manifest.json"];
        faults.extend(texts.iter().filter_map(|name| file_differs(statement, evidence, name)));
    }
    check("record", faults, || evidence.record.to_string())
}

/// The difference between a file of the record and what was signed.
fn file_differs(statement: &Statement<Provenance>, evidence: &Evidence, name: &str) -> Option<String> {
    let place = evidence.place(name);
    let signed = statement.predicate.run_details.byproducts.iter().find(|file| file.name() == name);
    let Some(signed) = signed else { return Some(format!("{}: it is not covered by the signature", place.display())) };
    match evidence.read(name) {
        Err(error) => Some(format!("{error:#}")),
        Ok(None) => Some(format!("{} is missing", place.display())),
        Ok(Some(bytes)) if Descriptor::of_bytes(name, &bytes).digest != signed.digest => {
            Some(format!("{}: its bytes are not those that were signed", place.display()))
        }
        Ok(Some(_)) => None,
    }
}

/// Checks that the key is the digest of the preimage, and that the preimage was signed.
fn key_fits(case: &Case, evidence: &Evidence) -> Check {
    let place = evidence.place("preimage.json");
    let text = match evidence.read("preimage.json") {
        Ok(Some(text)) => text,
        Ok(None) => return fail("key", format!("{} is missing", place.display())),
        Err(error) => return fail("key", format!("{error:#}")),
    };
    let found = Digest::of(&text);
    if found != evidence.key.0 {
        let message =
            format!("{}: its digest is {}, not the key {}", place.display(), found.short(), evidence.key.0.short());
        return fail("key", message);
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

/// Checks that the preimage is the one that the pipeline requests.
fn pipeline(evidence: &Evidence, asked: &str) -> Check {
    let found = evidence.read("preimage.json").ok().flatten().unwrap_or_default();
    let faults = if key::of_text(asked) == evidence.key && found == asked.as_bytes() {
        vec![]
    } else {
        vec![format!("{}: it is not what the pipeline requests", evidence.place("preimage.json").display())]
    };
    check("pipeline", faults, || "as the pipeline requests".into())
}

/// Checks that every input is an output of a result that is also checked, or unchanged files.
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
            faults.push(format!("input {slot}: {} was signed, but the preimage has {}", stated.short(), asked.short()));
        }
        let Some(expected) = asked.or(input.stated) else { continue };
        let Some(fault) = source_differs(auditor, input, expected) else { continue };
        match preimage.as_ref().and_then(|preimage| listed_images_hold(auditor, case, input, preimage)) {
            Some(folder) => grown.push(folder.display().to_string()),
            None => faults.push(format!("input {slot}: {fault}")),
        }
    }
    let without =
        wanted.iter().map(|(slot, digest)| format!("input {slot} ({}): its source is unknown", digest.short()));
    faults.extend(without);
    check("inputs", faults, || match (case.inputs.len(), grown.as_slice()) {
        (0, _) => "no inputs".into(),
        (1, []) => "1 input".into(),
        (n, []) => format!("{n} inputs"),
        (_, grown) => {
            format!("{} has changed, but not the files that were read", grown.join(", "))
        }
    })
}

/// The folder of this input, if it is a folder of images in which other files were added or removed but the result
/// would be the same. Only the experiment's own kinds list in an index what they read of a folder.
fn listed_images_hold<'a>(
    auditor: &Auditor,
    case: &Case,
    input: &'a super::audit::Input,
    preimage: &Preimage,
) -> Option<&'a Path> {
    let InputSource::Data { path, found: Ok(Some(found)) } = &input.from else { return None };
    if auditor.registry.find(&preimage.kind).is_some_and(|kind| kind.command) {
        return None;
    }
    let holds = match input.slot.strip_suffix(".images") {
        Some(slot) => auditor.images.hold(auditor.store, *preimage.inputs.get(slot)?, path, auditor.cache),
        None => index(&case.outputs).is_some() && listed_again(auditor, case, *found, preimage),
    };
    holds.then_some(path)
}

/// Whether the folder was indexed again in its current state, by the same code with the same parameters and the same
/// result. Changed annotations and new images count.
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

/// The difference if the source of an input does not have this digest.
fn source_differs(auditor: &Auditor, input: &super::audit::Input, expected: Digest) -> Option<String> {
    match &input.from {
        InputSource::Nowhere => Some(format!("no result here has an output {}", expected.short())),
        InputSource::Data { path, found: Err(error) } => Some(format!("{}: {error}", path.display())),
        InputSource::Data { path, found: Ok(None) } => Some(format!("{} does not exist", path.display())),
        InputSource::Data { path, found: Ok(Some(found)) } if *found != expected => Some(format!(
            "{} now holds {}, but held {} when it was read",
            path.display(),
            found.short(),
            expected.short()
        )),
        InputSource::Data { .. } => None,
        InputSource::Output { case, output } => {
            let source = &auditor.cases[*case];
            let name = |what: &str| if what.is_empty() { "a result without a name" } else { what }.to_string();
            if source.evidence.is_none() {
                let key = source.key.map_or("unknown".into(), |key| key.0.short());
                return Some(format!("{output} of {} (key {key}) is missing", name(&source.stage)));
            }
            match source.outputs.iter().find(|o| *o.name == **output) {
                Some(found) if found.blake3 == expected => None,
                Some(found) => Some(format!(
                    "{}/{output} is {}, but {} was read",
                    name(&source.stage),
                    found.blake3.short(),
                    expected.short()
                )),
                None => Some(format!("{} has no output {output}", name(&source.stage))),
            }
        }
    }
}

/// Checks the bytes of every output.
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
                    let fault = || {
                        format!(
                            "{what}: {} has {length} bytes, but {} were signed",
                            path.display(),
                            size.unwrap_or_default()
                        )
                    };
                    size.filter(|size| *size != length).map(|_| fault())
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
    let Some(listing) = listing else {
        return vec![format!("{}: {} is not a valid listing", output.name, path.display())];
    };
    let tree = store.root().join("trees").join(output.blake3.to_string());
    let tree = tree.exists().then_some(tree);
    let file = |file: &caco_engine::listing::Entry| {
        let what = format!("{}/{}", output.name, file.path);
        let differs = object(file.digest, Some(file.size), &what);
        differs.or_else(|| linked_differs(auditor, &tree.as_ref()?.join(&file.path), file.digest, &what))
    };
    listing.files.par_iter().filter_map(file).collect()
}

/// The files of a folder assembled from its objects, which later stages read, must be the objects.
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

/// Checks the log and the by-products.
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
    faults.extend(extra.map(|name| format!("{}: it is not covered by the signature", evidence.place(name).display())));
    let n = signed.len() - signed.iter().filter(|name| TEXTS.contains(name)).count();
    Ok(Some(check("log", faults, || if n > 1 { format!("log and {} by-products", n - 1) } else { "log".into() })))
}

/// Checks that metrics follow from the stored predictions, and comparisons from those.
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
            let InputSource::Output { case, output } = &input.from else { return None };
            let output = auditor.cases[*case].outputs.iter().find(|o| *o.name == **output)?;
            let path = auditor.store.object(output.blake3);
            digest_of(&path, auditor.cache).is_ok_and(|(found, _)| found == output.blake3).then_some(path)
        };
        return Some(figures_check(figures::comparison(&parameters, &input, &object)));
    }
    let (predictions, metrics) =
        (object("predictions").or_else(|| object("predictions.safetensors"))?, object(METRICS)?);
    // An arbitrary command may use the name predictions for anything.
    if kind.is_some_and(|kind| kind.command) && Predictions::read(&predictions).is_err() {
        return None;
    }
    Some(figures_check(figures::metrics(&predictions, &metrics)))
}

/// Reports the verdicts of trusted reruns.
fn reruns(auditor: &Auditor, evidence: &Evidence) -> Result<Option<Check>> {
    let found = rerun::verdicts(auditor.store, evidence.key, auditor.trust)?;
    if found.is_empty() {
        return Ok(None);
    }
    let count = |result: &str| found.iter().filter(|verdict| verdict.result == result).count();
    let (same, near) = (count("PASSED"), count("WARNED"));
    let state = if same == found.len() { State::Pass } else { State::Note };
    let message = format!(
        "{} by the signed test results: {same} with identical bytes, {near} within the tolerance, {} otherwise",
        if found.len() == 1 { "1 rerun".into() } else { format!("{} reruns", found.len()) },
        found.len() - same - near
    );
    Ok(Some(Check { check: "rerun", state, message }))
}

fn figures_check(found: Result<String, Vec<String>>) -> Check {
    match found {
        Ok(message) => Check { check: "figures", state: State::Pass, message },
        Err(faults) => check("figures", faults, String::new),
    }
}
