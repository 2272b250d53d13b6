//! DSSE: a text, its type, and signatures over both (<https://github.com/secure-systems-lab/dsse>, version 1.0.2).

use super::keyring::{Known, Signer, Trust};
use anyhow::{Context, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::{Signature, VerifyingKey};
use serde::{Deserialize, Serialize};

/// The type of an in-toto statement's text.
pub const IN_TOTO: &str = "application/vnd.in-toto+json";

/// A signed text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Envelope {
    /// The text, in base64.
    payload: String,
    /// Its type.
    payload_type: String,
    /// The signatures.
    signatures: Vec<Signed>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signed {
    keyid: String,
    sig: String,
}

/// The outcome of a verification.
#[derive(Clone, Debug)]
pub enum Verdict<'t> {
    /// A trusted key signed this text.
    Trusted(&'t Known),
    /// No trusted key signed it; the id of the first key named as signer.
    Stranger(String),
    /// A trusted key is named as signer, but its signature is invalid.
    Broken(&'t Known),
    /// There is no signature.
    Unsigned,
}

/// The signed bytes: the type and the text, each with its length (pre-authentication encoding).
fn encoding(kind: &str, text: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {kind} {} ", kind.len(), text.len()).into_bytes();
    bytes.extend_from_slice(text);
    bytes
}

impl Envelope {
    /// Signs an in-toto statement.
    pub fn seal(text: &[u8], signer: &Signer) -> Envelope {
        let signature = signer.sign(&encoding(IN_TOTO, text));
        Envelope {
            payload: STANDARD.encode(text),
            payload_type: IN_TOTO.into(),
            signatures: vec![Signed { keyid: signer.id().into(), sig: STANDARD.encode(signature.to_bytes()) }],
        }
    }

    /// Parses an envelope.
    pub fn parse(text: &[u8]) -> Result<Envelope> {
        let envelope: Envelope = serde_json::from_slice(text).context("it is not a DSSE envelope")?;
        let kind = &envelope.payload_type;
        ensure!(kind == IN_TOTO, "its payload is of type '{kind}', not '{IN_TOTO}'");
        Ok(envelope)
    }

    /// The text on one line.
    pub fn text(&self) -> String {
        serde_json::to_string(self).expect("strings are JSON")
    }

    /// The signed text.
    pub fn payload(&self) -> Result<Vec<u8>> {
        STANDARD.decode(&self.payload).context("its payload is not base64")
    }

    /// Verifies the signatures with the trusted keys.
    pub fn verify<'t>(&self, trust: &'t Trust) -> Result<Verdict<'t>> {
        let bytes = encoding(&self.payload_type, &self.payload()?);
        let mut verdict = Verdict::Unsigned;
        for signed in &self.signatures {
            let Some(known) = trust.find(&signed.keyid) else {
                if matches!(verdict, Verdict::Unsigned) {
                    verdict = Verdict::Stranger(signed.keyid.clone());
                }
                continue;
            };
            if signed.holds(&known.key, &bytes) {
                return Ok(Verdict::Trusted(known));
            }
            verdict = Verdict::Broken(known);
        }
        Ok(verdict)
    }

    /// Whether this key signed it, trusted or not.
    pub fn is_signed_by(&self, key: &VerifyingKey) -> bool {
        let Ok(text) = self.payload() else { return false };
        let (bytes, id) = (encoding(&self.payload_type, &text), super::keyring::id(key));
        self.signatures.iter().any(|signed| signed.keyid == id && signed.holds(key, &bytes))
    }
}

impl Signed {
    fn holds(&self, key: &VerifyingKey, bytes: &[u8]) -> bool {
        let signature = STANDARD.decode(&self.sig).ok().and_then(|sig| Signature::from_slice(&sig).ok());
        // Strict verification rejects malleable signatures.
        signature.is_some_and(|signature| key.verify_strict(bytes, &signature).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::SigningKey;

    fn signer(seed: u8) -> Signer {
        Signer::new(SigningKey::from_bytes(&[seed; 32]))
    }

    fn trust(seed: u8) -> Trust {
        Trust { keys: vec![Known { name: "k".into(), key: signer(seed).public(), file: "k".into() }] }
    }

    #[test]
    fn the_encoding_is_the_published_one() {
        // The protocol's own example.
        assert_eq!(
            encoding("http://example.com/HelloWorld", b"hello world"),
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
    }

    #[test]
    fn only_a_trusted_key_over_the_very_text_counts() {
        let sealed = Envelope::parse(Envelope::seal(b"{}", &signer(1)).text().as_bytes()).unwrap();
        assert!(matches!(sealed.verify(&trust(1)).unwrap(), Verdict::Trusted(_)));
        assert!(matches!(sealed.verify(&trust(2)).unwrap(), Verdict::Stranger(id) if id == signer(1).id()));
        assert!(sealed.is_signed_by(&signer(1).public()) && !sealed.is_signed_by(&signer(2).public()));
        let other = Envelope { payload: STANDARD.encode("{ }"), ..sealed.clone() };
        assert!(matches!(other.verify(&trust(1)).unwrap(), Verdict::Broken(_)));
        let none = Envelope { signatures: vec![], ..sealed.clone() };
        assert!(matches!(none.verify(&trust(1)).unwrap(), Verdict::Unsigned));
        let retyped = sealed.text().replace("vnd.in-toto", "vnd.other");
        assert!(Envelope::parse(retyped.as_bytes()).unwrap_err().to_string().contains("of type"));
    }
}
