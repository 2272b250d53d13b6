//! Unpacks untrusted archives: only files and folders below the target, bounded in number and size (CWE-22, CWE-59,
//! CWE-409).
//!
//! The target is initially empty and nothing else writes there, so it contains no links and no path leads out of it.

mod tar;
mod target;
mod zip;

use super::{Archive, Unpack};
use anyhow::{Context, Result, bail};
use std::{
    fs::{self, File},
    io::BufReader,
    path::Path,
};

pub use target::Limits;
use target::Target;

/// Unpacks the archive at `from` into a folder, reporting progress in bytes written.
pub fn unpack(archive: &Archive, from: &Path, folder: &Path, progress: &mut dyn FnMut(u64)) -> Result<()> {
    let limits = Limits { bytes: archive.unpacked.unwrap_or(Limits::default().bytes), ..Limits::default() };
    let into = folder.join(&archive.into);
    fs::create_dir_all(&into).with_context(|| format!("cannot create the folder {}", into.display()))?;
    let mut target = Target::new(&into, limits, progress);
    file(archive.unpack, from, &mut target).with_context(|| format!("cannot unpack {}", from.display()))?;
    for nested in &archive.nested {
        inner(&into.join(nested), &mut target)
            .with_context(|| format!("cannot unpack {nested} of {}", from.display()))?;
    }
    Ok(())
}

fn file(how: Unpack, from: &Path, target: &mut Target) -> Result<()> {
    let file = File::open(from)?;
    match how {
        Unpack::No => bail!("it is not an archive"),
        Unpack::Tar => tar::unpack(BufReader::with_capacity(1 << 18, file), target),
        Unpack::TarGz => {
            let gzip = flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(1 << 18, file));
            tar::unpack(BufReader::with_capacity(1 << 18, gzip), target)
        }
        Unpack::Zip => zip::unpack(BufReader::new(file), target),
    }
}

/// Unpacks a nested archive in place and removes it. Its contents count towards the outer archive's limits.
fn inner(from: &Path, target: &mut Target) -> Result<()> {
    let name = from.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
    let how = match () {
        () if ends(&[".tar"]) => Unpack::Tar,
        () if ends(&[".tar.gz", ".tgz"]) => Unpack::TarGz,
        () if ends(&[".zip"]) => Unpack::Zip,
        () => bail!("'{name}' does not end in .tar, .tar.gz, .tgz or .zip"),
    };
    target.beside(from)?;
    file(how, from, target)?;
    fs::remove_file(from)?;
    Ok(())
}

#[cfg(test)]
mod tests;
