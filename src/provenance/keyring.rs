//! The signing key, and the trusted keys. They are in a private folder outside every store:
//!
//! ```text
//! signing.pem        the private key, PKCS#8, readable only by its owner (mode 0600)
//! signing.pub.pem    the public key, to give to others
//! trusted/NAME.pem   public keys of others, and the user's own retired keys
//! ```

use anyhow::{Context, Result, bail, ensure};
use ed25519_dalek::{
    Signature, Signer as _, SigningKey, VerifyingKey,
    pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePrivateKey, EncodePublicKey, spki::der::pem::LineEnding},
};
use serde_json::json;
use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// The environment variable with the folder of keys.
pub const VARIABLE: &str = "CACO_KEYS";

/// A folder of keys.
#[derive(Clone, Debug)]
pub struct Keyring {
    folder: PathBuf,
}

/// A public key and its local name.
#[derive(Clone, Debug)]
pub struct Known {
    /// Its name.
    pub name: String,
    /// The key.
    pub key: VerifyingKey,
    /// The file it was read from.
    pub file: PathBuf,
}

/// The trusted keys.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// The keys.
    pub keys: Vec<Known>,
}

/// A private key that signs.
pub struct Signer {
    key: SigningKey,
    id: String,
}

/// The global id of a key: SHA-256 over its description in canonical JSON, as defined by securesystemslib.
pub fn id(key: &VerifyingKey) -> String {
    let public: String = key.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let text = json!({ "keytype": "ed25519", "keyval": { "public": public }, "scheme": "ed25519" }).to_string();
    caco_engine::digest::sha256(text.as_bytes()).to_string()
}

/// Parses a public key in PEM (SubjectPublicKeyInfo).
pub fn public(pem: &str) -> Result<VerifyingKey> {
    VerifyingKey::from_public_key_pem(pem)
        .ok()
        .context("it is not an Ed25519 public key in PEM; such a key begins with '-----BEGIN PUBLIC KEY-----'")
}

/// A public key as PEM.
pub fn pem(key: &VerifyingKey) -> String {
    key.to_public_key_pem(LineEnding::LF).expect("an Ed25519 key has a PEM form")
}

impl Keyring {
    /// The folder in `CACO_KEYS`, or `caco/keys` in the user's configuration folder.
    pub fn locate() -> Result<Keyring> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let settings = || set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")));
        let folder = set(VARIABLE).or_else(|| Some(settings()?.join("caco/keys")));
        let folder = folder.with_context(|| {
            format!(
                "there is no folder for signing keys: none of {VARIABLE}, XDG_CONFIG_HOME and HOME is set; set \
                 {VARIABLE} to a folder of your own"
            )
        })?;
        Ok(Keyring::at(folder))
    }

    /// The keys in this folder.
    pub fn at(folder: PathBuf) -> Keyring {
        Keyring { folder }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn private(&self) -> PathBuf {
        self.folder.join("signing.pem")
    }

    /// The file of the public part of the signing key.
    pub fn public_file(&self) -> PathBuf {
        self.folder.join("signing.pub.pem")
    }

    fn trusted(&self) -> PathBuf {
        self.folder.join("trusted")
    }

    /// The signing key. `None` if there is none yet.
    pub fn signer(&self) -> Result<Option<Signer>> {
        let path = self.private();
        let meta = match fs::metadata(&path) {
            Ok(meta) => meta,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(None),
            Err(e) => return Err(e).with_context(|| format!("cannot read the signing key {}", path.display())),
        };
        ensure!(
            meta.mode() & 0o077 == 0,
            "the signing key {path} can be read by others (mode {:04o}); fix it: chmod 600 {path}. If anyone may have \
             read it, replace it: caco signer new --replace",
            meta.mode() & 0o7777,
            path = path.display()
        );
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read the signing key {}", path.display()))?;
        let key = SigningKey::from_pkcs8_pem(&text).ok().with_context(|| {
            format!(
                "{} is not an Ed25519 private key in PEM (PKCS#8); move it away and run `caco signer new`",
                path.display()
            )
        })?;
        Ok(Some(Signer::new(key)))
    }

    /// The signing key, generated if there is none yet, and whether it was generated.
    pub fn signer_or_new(&self) -> Result<(Signer, bool)> {
        match self.signer()? {
            Some(signer) => Ok((signer, false)),
            None => Ok((self.make()?, true)),
        }
    }

    /// Generates the signing key. If two processes do so at the same time, both get the same key.
    pub fn make(&self) -> Result<Signer> {
        let make = || -> Result<()> {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
            let mut seed = [0; 32];
            getrandom::fill(&mut seed).map_err(|e| io::Error::other(e.to_string()))?;
            let key = SigningKey::from_bytes(&seed);
            let text = key.to_pkcs8_pem(LineEnding::LF).expect("an Ed25519 key has a PEM form");
            let aside = self.folder.join(format!(".signing.{}", std::process::id()));
            let _ = fs::remove_file(&aside);
            let mut file = File::options().write(true).create_new(true).mode(0o600).open(&aside)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            // A link fails if the name is taken, so the first key stays.
            let linked = fs::hard_link(&aside, self.private());
            fs::remove_file(&aside)?;
            match linked {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e.into()),
                _ => Ok(()),
            }
        };
        make().with_context(|| {
            format!("cannot create a signing key in {}; set {VARIABLE} to a writable folder", self.folder.display())
        })?;
        let signer = self.signer()?.context("the signing key was removed while it was being created; try again")?;
        write(&self.public_file(), &pem(&signer.public()))?;
        Ok(signer)
    }

    /// Generates another key, which signs from now on. The old one stays trusted under the returned name.
    pub fn replace(&self) -> Result<(Signer, String)> {
        let old = self.signer()?.with_context(|| format!("there is no key in {} to replace", self.folder.display()))?;
        let name = format!("retired-{}", &old.id[..8]);
        self.trust(&old.public(), &name)?;
        let path = self.private();
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        Ok((self.make()?, name))
    }

    /// Trusts a key from now on.
    pub fn trust(&self, key: &VerifyingKey, name: &str) -> Result<PathBuf> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.@".contains(c);
        ensure!(
            !name.is_empty() && name.chars().all(plain) && !name.starts_with('.'),
            "'{name}' is not a valid name for a key; use letters, digits and -_.@"
        );
        if let Some(known) = self.trust_in()?.keys.iter().find(|known| known.name == name) {
            ensure!(known.key == *key, "another key is called '{name}' already; choose another name with --name");
        }
        let folder = self.trusted();
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .with_context(|| format!("cannot create {}; set {VARIABLE} to a writable folder", folder.display()))?;
        let file = folder.join(format!("{name}.pem"));
        write(&file, &pem(key))?;
        Ok(file)
    }

    /// Stops trusting a key. Returns its name.
    pub fn distrust(&self, text: &str) -> Result<String> {
        let trust = self.trust_in()?;
        let fits = |known: &&Known| known.name == text || (text.len() >= 6 && id(&known.key).starts_with(text));
        let found: Vec<&Known> = trust.keys.iter().filter(fits).collect();
        let [known] = found.as_slice() else {
            let names: Vec<&str> = trust.keys.iter().map(|known| known.name.as_str()).collect();
            bail!("'{text}' matches {} keys; the known keys are {}", found.len(), names.join(", "))
        };
        ensure!(
            known.file.starts_with(self.trusted()),
            "this is the signing key; replace it first: caco signer new --replace"
        );
        fs::remove_file(&known.file).with_context(|| format!("cannot remove {}", known.file.display()))?;
        Ok(known.name.clone())
    }

    /// The trusted keys: the user's own key, called `own`, and those added by [`Keyring::trust`].
    pub fn trust_in(&self) -> Result<Trust> {
        let mut keys = vec![];
        if let Some(signer) = self.signer()? {
            keys.push(Known { name: "own".into(), key: signer.public(), file: self.private() });
        }
        let folder = self.trusted();
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries.collect::<io::Result<Vec<_>>>(),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(vec![]),
            Err(e) => Err(e),
        };
        let mut files: Vec<PathBuf> = entries
            .with_context(|| format!("cannot read {}", folder.display()))?
            .into_iter()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|ending| ending == "pem"))
            .collect();
        files.sort();
        for file in files {
            let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
            let key = public(&text).with_context(|| format!("{} does not contain a key", file.display()))?;
            keys.push(Known { name, key, file });
        }
        Ok(Trust { keys })
    }
}

impl Trust {
    /// The key of that id.
    pub fn find(&self, key_id: &str) -> Option<&Known> {
        self.keys.iter().find(|known| id(&known.key) == key_id)
    }
}

impl Signer {
    /// Creates a signer with this key.
    pub fn new(key: SigningKey) -> Signer {
        let id = id(&key.verifying_key());
        Signer { key, id }
    }

    /// The key's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The public key.
    pub fn public(&self) -> VerifyingKey {
        self.key.verifying_key()
    }

    /// Signs some bytes.
    pub fn sign(&self, bytes: &[u8]) -> Signature {
        self.key.sign(bytes)
    }
}

/// Writes a small file atomically.
fn write(path: &Path, text: &str) -> Result<()> {
    let aside = path.with_extension(format!("partial-{}", std::process::id()));
    let written = fs::write(&aside, text).and_then(|()| fs::rename(&aside, path));
    if written.is_err() {
        let _ = fs::remove_file(&aside);
    }
    written.with_context(|| format!("cannot write {}; set {VARIABLE} to a writable folder", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn ring() -> (tempfile::TempDir, Keyring) {
        let folder = tempfile::tempdir().unwrap();
        let ring = Keyring { folder: folder.path().join("keys") };
        (folder, ring)
    }

    #[test]
    fn an_id_is_the_one_that_securesystemslib_computes() {
        let key = SigningKey::from_bytes(&[1; 32]).verifying_key();
        // SSlibKey.from_crypto(Ed25519PrivateKey.from_private_bytes(b"\x01" * 32).public_key()).keyid
        assert_eq!(id(&key), "7ab6b86cb2c9684b0ddc10896153aa2595decf4d4327a5ff1a8ab7422c828b12");
    }

    #[test]
    fn a_key_is_made_once_and_for_its_owner_only() {
        let (_folder, ring) = ring();
        assert!(ring.signer().unwrap().is_none());
        let (first, made) = ring.signer_or_new().unwrap();
        assert!(made && !ring.signer_or_new().unwrap().1);
        assert_eq!(ring.make().unwrap().id(), first.id(), "the first key stays");
        assert_eq!(fs::metadata(ring.private()).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&ring.folder).unwrap().mode() & 0o777, 0o700);
        assert_eq!(id(&public(&fs::read_to_string(ring.public_file()).unwrap()).unwrap()), first.id());
        fs::set_permissions(ring.private(), fs::Permissions::from_mode(0o640)).unwrap();
        assert!(ring.signer().err().unwrap().to_string().contains("mode 0640"));
    }

    #[test]
    fn a_replaced_key_stays_trusted_until_it_is_not() {
        let (_folder, ring) = ring();
        let old = ring.make().unwrap();
        let (new, name) = ring.replace().unwrap();
        assert_ne!(old.id(), new.id());
        assert_eq!(ring.trust_in().unwrap().find(old.id()).unwrap().name, name);
        assert!(ring.distrust("own").unwrap_err().to_string().contains("is the signing key"));
        ring.distrust(&old.id()[..8]).unwrap();
        assert!(ring.trust_in().unwrap().find(old.id()).is_none());
        assert!(ring.distrust("nobody").unwrap_err().to_string().contains("the known keys are own"));
    }

    #[test]
    fn a_name_means_one_key() {
        let (_folder, ring) = ring();
        let keys = [2, 3].map(|seed| SigningKey::from_bytes(&[seed; 32]).verifying_key());
        ring.trust(&keys[0], "lab").unwrap();
        ring.trust(&keys[0], "lab").unwrap();
        assert!(ring.trust(&keys[1], "lab").unwrap_err().to_string().contains("another key is called 'lab'"));
        assert!(ring.trust(&keys[1], "../lab").unwrap_err().to_string().contains("not a valid name"));
    }
}
