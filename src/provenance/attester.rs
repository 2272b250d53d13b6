//! Signs results as they are published.

use super::{
    check,
    envelope::Envelope,
    evidence::Evidence,
    keyring::{self, Signer, Trust},
    source::Source,
    statement::{
        BUILD_TYPE, BUILDER, Builder, Definition, Descriptor, Details, EXCEPT, External, Internal, LISTING, Metadata,
        PROVENANCE, Provenance, Statement,
    },
};
use anyhow::{Context, Result, ensure};
use caco_engine::{
    attest::{Attest, Made},
    digest::{self, Digest},
    listing::Content,
    publish::{Finished, Placed, Read, ReadFrom},
    store::{self, Artifact, Pending},
};
use caco_pipeline::{kind::TOOL_SLOT, pipeline::Pipeline};
use std::{
    collections::HashMap,
    fs, io,
    path::Path,
    sync::{Mutex, OnceLock},
    thread::JoinHandle,
};

/// Signs the results of a run.
pub struct Attester {
    signer: Signer,
    trust: Trust,
    /// Reads the working tree's state while the first stages run.
    reader: Mutex<Option<JoinHandle<Option<Source>>>>,
    source: OnceLock<Option<Source>>,
    pipeline: Descriptor,
    fixed: Vec<Descriptor>,
    /// SHA-256 of files outside the store, by their BLAKE3. Each file is read once per run.
    sums: Mutex<HashMap<Digest, Digest>>,
}

impl Attester {
    /// Creates an attester for the results of this pipeline.
    pub fn new(signer: Signer, trust: Trust, pipeline: &Pipeline) -> Attester {
        let file = pipeline.file();
        let reader = std::thread::Builder::new().spawn(move || Source::of(&file)).ok();
        let text = pipeline.sources.first().map_or("", |source| source.text.as_str());
        Attester {
            signer,
            trust,
            reader: Mutex::new(reader),
            source: OnceLock::new(),
            pipeline: Descriptor::of_bytes("pipeline", text.as_bytes())
                .at(format!("file:{}", pipeline.path_in_project().display())),
            fixed: vec![
                Descriptor::of_bytes("code.lock", pipeline.registry.code.lock_text().as_bytes()),
                Descriptor::of_bytes("Cargo.lock", pipeline.registry.code.crates.as_bytes()),
            ],
            sums: Mutex::default(),
        }
    }

    fn source(&self) -> Option<&Source> {
        let read = || {
            let reader = self.reader.lock().ok().and_then(|mut reader| reader.take());
            reader.and_then(|reader| reader.join().ok()).flatten()
        };
        self.source.get_or_init(read).as_ref()
    }

    fn statement(&self, made: &Made) -> Result<Statement<Provenance>> {
        let Made { stage, finished, result, .. } = made;
        let class = result.record.get("determinism_class").filter(|class| !class.is_null());
        let external = External {
            stage: stage.name.clone(),
            pipeline: made.pipeline.name.clone(),
            profile: made.pipeline.overlay.profile.clone(),
            set: made.pipeline.overlay.set.clone(),
            key: finished.key,
            preimage: serde_json::from_str(&finished.preimage).context("a preimage is JSON")?,
            parameters: serde_json::from_str(stage.parameters()).context("parameters are JSON")?,
        };
        let internal = Internal {
            code: made.pipeline.registry.code.digest(stage.kind).and_then(|digest| digest.parse().ok()),
            determinism_class: class.cloned(),
            threads: finished.cpus,
            gpus: finished.gpus.clone(),
            attempt: finished.attempt,
            resumed: finished.resumed,
        };
        let mut dependencies = finished.inputs.iter().map(|read| self.input(made, read)).collect::<Result<Vec<_>>>()?;
        dependencies.push(self.pipeline.clone());
        dependencies.extend(self.fixed.iter().cloned());
        dependencies.extend(self.source().map(commit));
        dependencies.extend(class.and_then(|class| class["libtorch"].as_str()).map(libtorch));
        let definition = Definition {
            build_type: BUILD_TYPE.into(),
            external_parameters: external,
            internal_parameters: internal,
            resolved_dependencies: dependencies,
        };
        let details = Details { builder: self.builder(), metadata: times(finished), byproducts: byproducts(result)? };
        let subject = result.outputs.iter().map(|output| subject(&stage.name, output)).collect();
        Ok(Statement::new(PROVENANCE, subject, Provenance { build_definition: definition, run_details: details }))
    }

    fn builder(&self) -> Builder {
        Builder {
            id: BUILDER.into(),
            version: [("caco".to_string(), env!("CARGO_PKG_VERSION").to_string())].into(),
            public_key: keyring::pem(&self.signer.public()),
            host: store::host(),
        }
    }

    fn input(&self, made: &Made, read: &Read) -> Result<Descriptor> {
        let slot = Descriptor::named(&*read.slot).note("slot", &*read.slot);
        let descriptor = match &read.from {
            ReadFrom::Output { stage, output, result } => {
                let artifact = result.output(output).context("an input that was read has digests")?;
                let name = &made.pipeline.stages[*stage as usize].name;
                let uri = format!("caco:{}/{}/{output}", result.key, result.record);
                let descriptor = slot.digests(artifact.blake3, artifact.sha256).at(uri);
                let noted = [("key", result.key.to_string()), ("record", result.record.to_string())];
                let noted = noted.into_iter().chain([("stage", name.clone()), ("output", output.to_string())]);
                let descriptor = noted.fold(descriptor, |descriptor, (name, value)| descriptor.note(name, value));
                if artifact.folder { listed(descriptor) } else { executable(descriptor, artifact.executable) }
            }
            ReadFrom::Outside { at, content, placed } => {
                let (path, except) = (&at.path, &at.except);
                let descriptor = slot.at(format!("file://{}", path.display()));
                let descriptor = match except.0.is_empty() {
                    true => descriptor,
                    false => descriptor.note(EXCEPT, serde_json::json!(except)),
                };
                match (&**content, placed) {
                    (Content::Folder(listing), _) => {
                        let sha256 = digest::sha256(listing.text().as_bytes());
                        listed(descriptor.digests(content.digest(), sha256)).note("files", listing.files.len())
                    }
                    (Content::File(digest, runs), Placed::Copy(sha256)) => {
                        executable(descriptor.digests(*digest, *sha256), *runs)
                    }
                    (Content::File(digest, runs), Placed::Itself(_)) => {
                        executable(descriptor.digests(*digest, self.sum(path, *digest)?), *runs)
                    }
                }
            }
            ReadFrom::Tool(tool) => {
                let descriptor = slot.digests(tool.digest, digest::sha256(tool.identity().as_bytes()));
                let name = read.slot.strip_prefix(TOOL_SLOT).unwrap_or(&read.slot);
                descriptor.at(format!("tool:{name}")).note("version", tool.version.clone())
            }
        };
        Ok(if read.hashed { descriptor } else { descriptor.note("located", true) })
    }

    /// SHA-256 of a file whose BLAKE3 is known.
    fn sum(&self, path: &Path, blake3: Digest) -> Result<Digest> {
        let mut sums = self.sums.lock().expect("no panic while held");
        if let Some(known) = sums.get(&blake3) {
            return Ok(*known);
        }
        let (found, sum, _) = digest::both_of_file(path).with_context(|| format!("cannot read {}", path.display()))?;
        ensure!(found == blake3, "{} was changed while the stage ran; run again", path.display());
        sums.insert(blake3, sum);
        Ok(sum)
    }
}

impl Attest for Attester {
    fn attest(&self, made: &Made) -> std::result::Result<String, String> {
        let statement = self.statement(made).map_err(|e| format!("it cannot be attested: {e:#}"))?;
        Ok(Envelope::seal(statement.text().as_bytes(), &self.signer).text() + "\n")
    }

    fn holds(&self, record: &Path) -> bool {
        Evidence::of_folder(record).is_some_and(|evidence| check::record_holds(evidence, &self.trust))
    }
}

/// Marks the digests as those of a folder's listing.
fn listed(mut descriptor: Descriptor) -> Descriptor {
    descriptor.media_type = Some(LISTING.into());
    descriptor
}

/// Marks an executable file.
fn executable(descriptor: Descriptor, runs: bool) -> Descriptor {
    if runs { descriptor.note("executable", true) } else { descriptor }
}

fn subject(stage: &str, output: &Artifact) -> Descriptor {
    let name = format!("{stage}/{}", output.name);
    let descriptor = Descriptor::named(name).digests(output.blake3, output.sha256);
    let descriptor = descriptor.note("output", &*output.name).note("size", output.size);
    if output.folder { listed(descriptor) } else { executable(descriptor, output.executable) }
}

fn commit(source: &Source) -> Descriptor {
    let mut descriptor = Descriptor::named("source").note("dirty", source.dirty);
    descriptor.digest.insert("gitCommit".into(), source.commit.clone());
    descriptor
}

fn libtorch(version: &str) -> Descriptor {
    Descriptor::named("libtorch").at(format!("pkg:pypi/torch@{version}"))
}

fn times(finished: &Finished) -> Metadata {
    let time = |at| humantime::format_rfc3339_millis(at).to_string();
    Metadata {
        invocation_id: format!("caco:{}#{}", finished.key, finished.attempt),
        started_on: time(finished.began),
        finished_on: time(finished.began + finished.took),
    }
}

/// The record's own files: its texts, the log, and the stage's by-products.
fn byproducts(result: &Pending) -> Result<Vec<Descriptor>> {
    let mut found: Vec<Descriptor> =
        result.texts().iter().map(|(name, text)| Descriptor::of_bytes(*name, text.as_bytes())).collect();
    if let Some(log) = &result.log {
        // Most programs print nothing.
        let empty = fs::metadata(log).is_ok_and(|meta| meta.len() == 0);
        let log_sum = || if empty { Ok(Descriptor::of_bytes("log", b"")) } else { Descriptor::of_file("log", log) };
        match log_sum() {
            Ok(descriptor) => found.push(descriptor),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e).with_context(|| format!("cannot read {}", log.display())),
        }
    }
    if let Some(folder) = &result.byproducts {
        below(folder, "byproducts", &mut found)?;
    }
    Ok(found)
}

/// Every file below a folder, sorted by name.
fn below(folder: &Path, name: &str, found: &mut Vec<Descriptor>) -> Result<()> {
    let failed = || format!("cannot read {}", folder.display());
    let mut entries: Vec<_> = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<_>>).with_context(failed)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (path, name) = (entry.path(), format!("{name}/{}", entry.file_name().to_string_lossy()));
        if path.is_dir() {
            below(&path, &name, found)?;
        } else {
            found.push(Descriptor::of_file(name, &path).with_context(|| format!("cannot read {}", path.display()))?);
        }
    }
    Ok(())
}
