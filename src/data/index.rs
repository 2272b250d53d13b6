//! The list of images of a folder in the ImageFolder layout (`<class>/<image>`): made in parallel, every image decoded
//! once, so that a truncated file is found here and not in epoch 37.

use super::{
    decode::{Decoder, EXTENSIONS},
    raster::Raster,
};
use crate::spec::kind::Unreadable;
use anyhow::{Context as _, Result, bail, ensure};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, BufWriter, Write as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// Version of the file format.
const FORMAT: u32 = 1;
/// An error names at most this many files.
const NAMED_MAX: usize = 20;
/// Folders nested deeper are taken for a loop of symbolic links.
const DEPTH_MAX: usize = 40;

/// The first line of an index file.
#[derive(Serialize, Deserialize)]
struct Header {
    format: u32,
    classes: Vec<String>,
}

/// One image, as a line of an index file has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Path below the folder, with `/` between its parts.
    pub path: String,
    /// Number of its class.
    pub label: u32,
    /// Width, pixels; 0 where unreadable.
    pub width: u32,
    /// Height, pixels; 0 where unreadable.
    pub height: u32,
    /// Length of the file, bytes.
    pub bytes: u64,
    /// BLAKE3 of the file.
    #[serde(with = "hex")]
    pub digest: blake3::Hash,
    /// Why it cannot be decoded, where it cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<String>,
}

mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(digest: &blake3::Hash, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&digest.to_hex())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<blake3::Hash, D::Error> {
        let text = String::deserialize(from)?;
        blake3::Hash::from_hex(text).map_err(D::Error::custom)
    }
}

/// The images of a folder, sorted by the bytes of their paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    /// Names of the classes, in byte order; a label is a place in this list.
    pub classes: Vec<String>,
    /// The images, the unreadable ones among them.
    pub images: Vec<Image>,
}

/// Lists the images below `root`. Each folder in it is a class; images may lie deeper in it. Symbolic links are followed.
/// `progress` is told how many files of how many are done, from several threads.
///
/// Errors: no class folder, a class without images, a name that is not UTF-8, a file that cannot be read; images that
/// cannot be decoded unless they are to be left out.
pub fn build(root: &Path, unreadable: Unreadable, progress: impl Fn(u64, u64) + Sync) -> Result<Index> {
    let (classes, files) = list(root)?;
    let (done, total) = (AtomicU64::new(0), files.len() as u64);
    let images = files
        .into_par_iter()
        .map_init(Default::default, |state: &mut (Decoder, Raster), (path, label)| {
            let image = examine(root, path, label, &mut state.0, &mut state.1);
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, total);
            image
        })
        .collect::<Result<Vec<_>>>()?;
    if unreadable == Unreadable::Fail {
        refuse_unreadable(root, &images)?;
    }
    Ok(Index { classes, images })
}

/// Classes, and the images of all of them in the order of the index.
fn list(root: &Path) -> Result<(Vec<String>, Vec<(String, u32)>)> {
    let mut classes: Vec<String> = entries(root)?.into_iter().filter(|(_, path)| path.is_dir()).map(|e| e.0).collect();
    classes.sort_unstable();
    ensure!(!classes.is_empty(), "{} holds no folder; expected one folder a class, with its images", root.display());
    let listed = classes.par_iter().enumerate().map(|(label, class)| {
        let mut paths = vec![];
        walk(&root.join(class), class, DEPTH_MAX, &mut paths)?;
        Ok(paths.into_iter().map(|path| (path, label as u32)).collect::<Vec<_>>())
    });
    let listed = listed.collect::<Result<Vec<_>>>()?;
    let empty: Vec<&str> = classes.iter().zip(&listed).filter(|(_, l)| l.is_empty()).map(|(c, _)| c.as_str()).collect();
    if !empty.is_empty() {
        let known = EXTENSIONS.join(", ");
        bail!("{}: no images in {}; images end in {known}", root.display(), enumerate(&empty));
    }
    let mut files: Vec<_> = listed.into_iter().flatten().collect();
    files.sort_unstable();
    Ok((classes, files))
}

fn walk(folder: &Path, prefix: &str, depth: usize, paths: &mut Vec<String>) -> Result<()> {
    ensure!(depth > 0, "{} lies {DEPTH_MAX} folders deep; is it a loop of symbolic links?", folder.display());
    for (name, path) in entries(folder)? {
        let relative = format!("{prefix}/{name}");
        if path.is_dir() {
            walk(&path, &relative, depth - 1, paths)?;
        } else if is_image(&name) {
            paths.push(relative);
        }
    }
    Ok(())
}

/// Names and paths of what lies in `folder`, in no order.
fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let reading = || format!("cannot list {}", folder.display());
    let name = |entry: fs::DirEntry| match entry.file_name().into_string() {
        Ok(name) => Ok((name, entry.path())),
        Err(name) => bail!("{}: the name {name:?} is not UTF-8; rename it", folder.display()),
    };
    fs::read_dir(folder).with_context(reading)?.map(|entry| name(entry.with_context(reading)?)).collect()
}

fn is_image(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, end)| EXTENSIONS.iter().any(|known| end.eq_ignore_ascii_case(known)))
}

fn examine(root: &Path, path: String, label: u32, decoder: &mut Decoder, raster: &mut Raster) -> Result<Image> {
    let whole = root.join(&path);
    let file = fs::read(&whole).with_context(|| format!("cannot read {}", whole.display()))?;
    let unreadable = decoder.decode(&file, raster).err().map(|error| format!("{error:#}"));
    let (width, height) = if unreadable.is_some() { (0, 0) } else { (raster.width as u32, raster.height as u32) };
    Ok(Image { path, label, width, height, bytes: file.len() as u64, digest: blake3::hash(&file), unreadable })
}

fn refuse_unreadable(root: &Path, images: &[Image]) -> Result<()> {
    let name = |image: &Image| image.unreadable.as_ref().map(|why| format!("\n  {}: {why}", image.path));
    let named: Vec<String> = images.iter().filter_map(name).collect();
    if named.is_empty() {
        return Ok(());
    }
    let more = named.len().saturating_sub(NAMED_MAX);
    let more = if more > 0 { format!("\n  and {more} more") } else { String::new() };
    bail!(
        "{}: {} of {} images cannot be decoded; repair or remove them, or set `unreadable: LeaveOut`:{}{more}",
        root.display(),
        named.len(),
        images.len(),
        named[..named.len().min(NAMED_MAX)].concat(),
    )
}

fn enumerate(names: &[&str]) -> String {
    let more = names.len().saturating_sub(NAMED_MAX);
    let list = names[..names.len() - more].join(", ");
    if more > 0 { format!("{list} and {more} more") } else { list }
}

impl Index {
    /// Writes it as JSON, one object a line: first the format's version and the classes, then the images.
    pub fn write(&self, path: &Path) -> Result<()> {
        let write = || -> std::io::Result<()> {
            let mut file = BufWriter::new(File::create(path)?);
            serde_json::to_writer(&mut file, &Header { format: FORMAT, classes: self.classes.clone() })?;
            for image in &self.images {
                file.write_all(b"\n")?;
                serde_json::to_writer(&mut file, image)?;
            }
            file.write_all(b"\n")?;
            file.flush()
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }

    /// Reads what [`Index::write`] wrote. Errors name the line.
    pub fn read(path: &Path) -> Result<Index> {
        let file = File::open(path).with_context(|| format!("cannot open the index {}", path.display()))?;
        let mut lines = BufReader::new(file).lines().enumerate();
        let place = |number: usize| format!("{}, line {}", path.display(), number + 1);
        let (_, first) = lines.next().with_context(|| format!("{} is empty; it is no index", path.display()))?;
        let header: Header = serde_json::from_str(&first?).with_context(|| format!("{}: not an index", place(0)))?;
        ensure!(header.format == FORMAT, "{}: format {} is unknown, this is {FORMAT}", place(0), header.format);
        let images = lines.map(|(number, line)| {
            let image: Image = serde_json::from_str(&line?).with_context(|| place(number))?;
            let known = (image.label as usize) < header.classes.len();
            ensure!(known, "{}: label {} of {} classes", place(number), image.label, header.classes.len());
            Ok(image)
        });
        let images = images.collect::<Result<Vec<_>>>()?;
        Ok(Index { classes: header.classes, images })
    }
}
