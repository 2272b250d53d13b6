//! `caco signer`

use super::{Project, open, print, print_json};
use anyhow::{Context, Result, bail};
use caco_provenance::{
    evidence::{Evidence, provenance},
    keyring::{self, Keyring},
};
use clap::{Args, Subcommand};
use ed25519_dalek::VerifyingKey;
use schemars::JsonSchema;
use serde::Serialize;
use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

#[derive(Args)]
#[command(after_help = "Examples:\n  caco signer list\n  caco signer trust colleague.pub.pem --name colleague")]
pub struct SignerArgs {
    #[command(subcommand)]
    command: SignerCommand,
}

#[derive(Subcommand)]
enum SignerCommand {
    /// Make the key that signs results on this machine
    New(NewArgs),
    /// List the key that signs and the trusted keys
    List(ListArgs),
    /// Trust what a key signs
    Trust(TrustArgs),
    /// Stop trusting a key
    Distrust(DistrustArgs),
}

#[derive(Args)]
struct NewArgs {
    /// Replace the key; what the old one signed stays trusted
    #[arg(long)]
    replace: bool,
}

#[derive(Args)]
struct ListArgs {
    /// Print them as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct TrustArgs {
    /// A public key in PEM, or the start of the id of a key that signed a result here
    key: String,
    /// Its name here [default: the file's name, or the machine where it signs]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

#[derive(Args)]
struct DistrustArgs {
    /// Its name, or the start of its id
    key: String,
}

pub fn main(args: &SignerArgs, project: &Project) -> Result<ExitCode> {
    let ring = Keyring::locate()?;
    match &args.command {
        SignerCommand::New(args) => new(&ring, args),
        SignerCommand::List(args) => list(&ring, args),
        SignerCommand::Trust(args) => trust(&ring, args, project),
        SignerCommand::Distrust(args) => {
            let name = ring.distrust(&args.key)?;
            print(&format!("what the key '{name}' signs is trusted no more\n"))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn new(ring: &Keyring, args: &NewArgs) -> Result<ExitCode> {
    let there = ring.signer()?.is_some();
    if there && !args.replace {
        bail!("there is a signing key in {} already; --replace makes another one", ring.folder().display());
    }
    let (signer, retired) = if there {
        let (signer, name) = ring.replace()?;
        (signer, format!("what the old key signed stays trusted, as '{name}'\n"))
    } else {
        (ring.make()?, String::new())
    };
    print(&format!(
        "key {} signs from now on; hand {} to those who are to trust it\n{retired}",
        &signer.id()[..16],
        ring.public_file().display()
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// A key that results are signed with, as `--json` prints it.
#[derive(Serialize, JsonSchema)]
pub struct Listed {
    /// Its id: the SHA-256 of the public key.
    id: String,
    /// Its name here.
    name: String,
    /// Whether it signs what this machine makes.
    signs: bool,
    /// The file of the public key.
    file: PathBuf,
    /// The public key, PEM.
    public: String,
}

fn list(ring: &Keyring, args: &ListArgs) -> Result<ExitCode> {
    let trust = ring.trust_in()?;
    if args.json {
        let row = |known: &keyring::Known| Listed {
            id: keyring::id(&known.key),
            name: known.name.clone(),
            signs: known.name == "own",
            file: known.file.clone(),
            public: keyring::pem(&known.key),
        };
        print_json(&trust.keys.iter().map(row).collect::<Vec<_>>())?;
        return Ok(ExitCode::SUCCESS);
    }
    if trust.keys.is_empty() {
        say!("no key in {} yet; `caco run` makes one, or `caco signer new`", ring.folder().display());
    }
    let row = |known: &keyring::Known| {
        let signs = if known.name == "own" { "signs here" } else { "trusted" };
        format!("{}  {:10}  {}\n", &keyring::id(&known.key)[..16], signs, known.name)
    };
    print(&trust.keys.iter().map(row).collect::<String>())?;
    Ok(ExitCode::SUCCESS)
}

fn trust(ring: &Keyring, args: &TrustArgs, project: &Project) -> Result<ExitCode> {
    let path = Path::new(&args.key);
    let (key, name) = if path.exists() {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let key = keyring::public(&text).with_context(|| path.display().to_string())?;
        (key, path.file_stem().unwrap_or_default().to_string_lossy().trim_end_matches(".pub").to_string())
    } else {
        of_store(&args.key, project)?
    };
    let name = args.name.clone().unwrap_or(name);
    let file = ring.trust(&key, &name)?;
    print(&format!("what the key {} signs is trusted, as '{name}' ({})\n", &keyring::id(&key)[..16], file.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// A key that says it signed a result of the store, and the machine that it signed on.
fn of_store(start: &str, project: &Project) -> Result<(VerifyingKey, String)> {
    let digits = start.len() >= 8 && start.bytes().all(|b| b.is_ascii_hexdigit());
    let none =
        || format!("'{start}' is neither a file with a public key nor the start of the id of a key, 8 digits or more");
    if !digits {
        bail!(none());
    }
    let store = open::store(project)?;
    for key in store.keys()? {
        let Some(evidence) = Evidence::of(&store, key)? else { continue };
        let Ok(Some(envelope)) = evidence.envelope() else { continue };
        let Ok(statement) = provenance(&envelope) else { continue };
        let builder = statement.predicate.run_details.builder;
        let Ok(public) = keyring::public(&builder.public_key) else { continue };
        if keyring::id(&public).starts_with(start) && envelope.is_signed_by(&public) {
            return Ok((public, builder.host));
        }
    }
    bail!("no result in {} is signed by a key whose id starts with {start}", store.root().display())
}
