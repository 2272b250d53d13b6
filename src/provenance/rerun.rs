//! Compares a rerun of a stage with its first result, as an in-toto test result
//! (<https://in-toto.io/attestation/test-result/v0.1>).

use super::{
    envelope::Envelope,
    evidence::Evidence,
    keyring::Signer,
    statement::{Descriptor, Statement},
    tolerance,
};
use anyhow::{Context, Result};
use caco_engine::{
    environment,
    key::Key,
    store::{ATTESTATION, Artifact, Cause, Published, Store},
};
use caco_pipeline::kind::Tolerance;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::PathBuf;

/// The predicate type of a test result.
pub const TEST_RESULT: &str = "https://in-toto.io/attestation/test-result/v0.1";

/// A test result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TestResult {
    /// `PASSED`, `WARNED` or `FAILED`.
    pub result: String,
    /// The attestations of both records.
    pub configuration: Vec<Descriptor>,
    /// Tests that passed.
    pub passed_tests: Vec<String>,
    /// Tests that passed within a tolerance only.
    pub warned_tests: Vec<String>,
    /// Tests that failed.
    pub failed_tests: Vec<String>,
}

/// The outcome of a rerun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case", tag = "verdict")]
pub enum Verdict {
    /// Every output has the same bytes.
    Identical,
    /// The determinism class is different, and the differences are within the tolerance of the kind.
    Within {
        /// How the classes differ.
        classes: String,
        /// The outputs whose bytes differ.
        outputs: Vec<String>,
    },
    /// The bytes differ within one determinism class, or by more than the tolerance.
    Differs {
        /// The differences.
        faults: Vec<String>,
    },
}

/// A rerun and the first result.
pub struct Rerun<'r> {
    /// The store of the first result.
    pub store: &'r Store,
    /// The first result.
    pub first: &'r Published,
    /// The store of the second.
    pub scratch: &'r Store,
    /// The second.
    pub second: &'r Published,
    /// How much they may differ under different determinism classes.
    pub tolerance: Tolerance,
}

impl Rerun<'_> {
    /// Compares the two results.
    pub fn verdict(&self) -> Result<Verdict> {
        let differing: Vec<(&Artifact, &Artifact)> = self
            .first
            .outputs
            .iter()
            .filter_map(|a| Some((a, self.second.output(&a.name)?)))
            .filter(|(a, b)| a.blake3 != b.blake3)
            .collect();
        let missing = self.first.outputs.len() != self.second.outputs.len();
        if differing.is_empty() && !missing {
            return Ok(Verdict::Identical);
        }
        let [before, now] = [(self.store, self.first), (self.scratch, self.second)].map(|(store, of)| class(store, of));
        if missing || before == now {
            let mut faults: Vec<String> = differing.iter().map(|(a, b)| difference(a, b)).collect();
            if let Some((before, now)) = cpu(self.store, self.first).zip(cpu(self.scratch, self.second)) {
                faults.push(format!(
                    "portable results have the same bytes on every machine; the first was computed on {before}, this one on {now}"
                ));
            }
            if missing {
                faults.push("the results have different outputs".into());
            }
            return Ok(Verdict::Differs { faults });
        }
        let mut faults = vec![];
        for (a, b) in &differing {
            let (first, second) = (self.store.object(a.blake3), self.scratch.object(b.blake3));
            faults.extend(tolerance::compare(self.tolerance, &a.name, &first, &second)?);
        }
        if !faults.is_empty() {
            return Ok(Verdict::Differs { faults });
        }
        let outputs = differing.iter().map(|(a, _)| a.name.to_string()).collect();
        Ok(Verdict::Within { classes: format!("{before} → {now}"), outputs })
    }

    /// Keeps the second result beside the first if their bytes differ.
    pub fn keep(&self, verdict: &Verdict) -> Result<()> {
        if *verdict == Verdict::Identical {
            return Ok(());
        }
        let key = self.first.key;
        self.store.note_divergence(key, &self.first.record, &self.second.record, Cause::Rerun)?;
        self.scratch.copy_to(self.store, &[key])?;
        Ok(())
    }

    /// Signs the verdict as a test result and stores it.
    pub fn attest(&self, verdict: &Verdict, stage: &str, signer: &Signer) -> Result<PathBuf> {
        let subject = self
            .first
            .outputs
            .iter()
            .map(|o| Descriptor::named(format!("{stage}/{}", o.name)).digests(o.blake3, o.sha256))
            .collect();
        let mut configuration = vec![];
        for (name, store, of) in [("first", self.store, self.first), ("second", self.scratch, self.second)] {
            let evidence = Evidence::of_record(store, of.key, &of.record)?;
            let text = evidence.map(|evidence| evidence.read(ATTESTATION)).transpose()?.flatten().unwrap_or_default();
            let uri = format!("caco:{}/{}", of.key, of.record);
            configuration
                .push(Descriptor::of_bytes(name, &text).at(uri).note("determinismClass", described(store, of)));
        }
        let mut found = TestResult {
            result: "PASSED".into(),
            configuration,
            passed_tests: vec![],
            warned_tests: vec![],
            failed_tests: vec![],
        };
        match verdict {
            Verdict::Identical => found.passed_tests.push("identical bytes".into()),
            Verdict::Within { classes, .. } => {
                found.result = "WARNED".into();
                found.warned_tests.push(format!("within the declared tolerance, under another class: {classes}"));
            }
            Verdict::Differs { faults } => {
                found.result = "FAILED".into();
                found.failed_tests.clone_from(faults);
            }
        }
        let text = Statement::new(TEST_RESULT, subject, found).text();
        self.store
            .keep_verdict(self.first.key, &(Envelope::seal(text.as_bytes(), signer).text() + "\n"))
            .context("cannot store the verdict")
    }
}

fn difference(a: &Artifact, b: &Artifact) -> String {
    format!("{} was {} ({} bytes), now {} ({} bytes)", a.name, a.blake3.short(), a.size, b.blake3.short(), b.size)
}

/// The determinism class of a result, with the variables that chose its kernels. Empty if no tensor was involved.
pub fn class(store: &Store, of: &Published) -> String {
    let made = store.record(of).ok().flatten().unwrap_or_default();
    let Value::Object(class) = &made["determinism_class"] else { return String::new() };
    let environment = made["conditions"]["environment"].as_object().into_iter().flatten();
    let kernels = environment.filter(|(name, _)| environment::chooses_kernels(name));
    let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), String::from);
    class.iter().chain(kernels).map(|(name, value)| format!("{name} {}", text(value))).collect::<Vec<_>>().join(", ")
}

/// The CPU that computed a portable result, whose class does not name it.
fn cpu(store: &Store, of: &Published) -> Option<String> {
    let made = store.record(of).ok()??;
    made["determinism_class"].get("portable")?;
    Some(made["device"]["cpu"].as_str()?.into())
}

/// The class of a result, and the CPU where the class does not name it.
fn described(store: &Store, of: &Published) -> String {
    let class = class(store, of);
    cpu(store, of).map_or(class.clone(), |cpu| format!("{class}, on {cpu}"))
}

/// The verdicts of reruns of a result that a trusted key signed.
pub fn verdicts(store: &Store, key: Key, trust: &super::keyring::Trust) -> Result<Vec<TestResult>> {
    let mut found = vec![];
    for text in store.verdicts(key)? {
        let Ok(envelope) = Envelope::parse(&text) else { continue };
        if matches!(envelope.verify(trust), Ok(super::envelope::Verdict::Trusted(_)))
            && let Ok(statement) = Statement::<TestResult>::parse(&envelope.payload()?, TEST_RESULT)
        {
            found.push(statement.predicate);
        }
    }
    Ok(found)
}
