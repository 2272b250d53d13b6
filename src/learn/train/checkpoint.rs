//! The full state of a training, as a file: everything a resumed run needs to produce the same bytes as an
//! uninterrupted one.

use super::method::{Changed, Method};
use crate::tensors::Tensors;
use anyhow::{Context as _, Result, ensure};
use caco_kinds::Model;
use std::{
    fs, io,
    path::{Path, PathBuf},
};
use tch::no_grad;

/// The position of a training: its next step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Epoch, from 0.
    pub epoch: u64,
    /// Step within the epoch, from 0.
    pub step: u64,
    /// Steps done over all epochs.
    pub done: u64,
    /// Length of the curve so far, in bytes.
    pub curve: u64,
}

/// Writes the tensors of a training by their names; the model and the position are metadata. The write is atomic; equal
/// states give equal bytes.
pub fn save(path: &Path, model: &Model, position: Position, changed: &[Changed]) -> Result<()> {
    let mut file = Tensors::default();
    for Changed { name, tensor, .. } in changed {
        file.insert(name, tensor);
    }
    file.metadata.insert("model".into(), serde_json::to_string(model)?);
    let Position { epoch, step, done, curve } = position;
    for (name, value) in [("epoch", epoch), ("step", step), ("done", done), ("curve", curve)] {
        file.metadata.insert(name.into(), value.to_string());
    }
    file.write(path)
}

/// A file written by [`save`].
#[derive(Debug)]
pub struct Saved {
    /// The description of the network.
    pub model: Model,
    /// The position of the training.
    pub position: Position,
    /// The tensors.
    pub tensors: Tensors,
    path: PathBuf,
}

impl Saved {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self> {
        let file = Tensors::read(path)?;
        Self::parse(file, path).with_context(|| format!("{} is not a training state", path.display()))
    }

    fn parse(tensors: Tensors, path: &Path) -> Result<Self> {
        let said = |name: &str| tensors.metadata.get(name).with_context(|| format!("its metadata lacks '{name}'"));
        let number = |name: &str| -> Result<u64> { said(name)?.parse().with_context(|| format!("its '{name}'")) };
        let position =
            Position { epoch: number("epoch")?, step: number("step")?, done: number("done")?, curve: number("curve")? };
        let model: Model = serde_json::from_str(said("model")?).context("its metadata's 'model'")?;
        Ok(Saved { model, position, tensors, path: path.into() })
    }

    /// Sets the tensors of a training to those of the file. If any is missing, unexpected, or of another shape or type,
    /// none is set, and the error names them.
    pub fn restore(mut self, changed: Vec<Changed>) -> Result<()> {
        let mut faults = Vec::new();
        let mut found = Vec::new();
        for Changed { name, tensor, .. } in changed {
            match self.tensors.tensors.remove(&name) {
                None => faults.push(format!("'{name}' is missing")),
                Some(saved) if saved.size() != tensor.size() || saved.kind() != tensor.kind() => faults.push(format!(
                    "'{name}' is {:?} {:?}, the training's is {:?} {:?}",
                    saved.kind(),
                    saved.size(),
                    tensor.kind(),
                    tensor.size()
                )),
                Some(saved) => found.push((tensor, saved)),
            }
        }
        faults.extend(self.tensors.tensors.keys().map(|name| format!("'{name}' is not part of this training")));
        faults.truncate(8);
        ensure!(faults.is_empty(), "{} is another training's state: {}", self.path.display(), faults.join("; "));
        no_grad(|| found.into_iter().for_each(|(mut tensor, saved)| tensor.copy_(&saved)));
        Ok(())
    }
}

/// The checkpoints of a training, in a folder. The newest two are kept.
#[derive(Debug)]
pub struct Checkpoints {
    folder: PathBuf,
}

impl Checkpoints {
    /// The checkpoints in `folder`, which must exist.
    pub fn of(folder: &Path) -> Self {
        Checkpoints { folder: folder.into() }
    }

    /// Writes a checkpoint, and deletes all but it and the previous one.
    pub fn save(&self, model: &Model, position: Position, changed: &[Changed]) -> Result<()> {
        save(&self.folder.join(format!("checkpoint-{:012}.safetensors", position.done)), model, position, changed)?;
        for old in self.newest_first()?.iter().skip(2) {
            fs::remove_file(old).with_context(|| format!("cannot delete {}", old.display()))?;
        }
        Ok(())
    }

    /// Sets `method` to the newest readable checkpoint, and returns its position; unreadable ones are logged and skipped.
    /// `None` if there is none. An error if it is of another model.
    pub fn resume(&self, model: &Model, method: &dyn Method) -> Result<Option<Position>> {
        for path in self.newest_first()? {
            let restore = || -> Result<(Model, Position)> {
                let saved = Saved::read(&path)?;
                let (theirs, position) = (saved.model.clone(), saved.position);
                if theirs == *model {
                    saved.restore(method.changed())?;
                }
                Ok((theirs, position))
            };
            match restore() {
                Ok((theirs, position)) => {
                    ensure!(theirs == *model, "the checkpoint {} belongs to another model", path.display());
                    return Ok(Some(position));
                }
                Err(error) => tracing::warn!("skipping a checkpoint: {error:#}"),
            }
        }
        Ok(None)
    }

    /// Path of the newest checkpoint, for messages.
    pub fn last_good(&self) -> String {
        let newest = self.newest_first().unwrap_or_default().into_iter().next();
        newest.map_or("none was written yet".into(), |path| path.display().to_string())
    }

    fn newest_first(&self) -> Result<Vec<PathBuf>> {
        let list = || -> io::Result<Vec<PathBuf>> {
            let paths: io::Result<Vec<PathBuf>> = fs::read_dir(&self.folder)?.map(|e| Ok(e?.path())).collect();
            let name = |path: &PathBuf| path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            let mut paths = paths?;
            paths.retain(|path| name(path).starts_with("checkpoint-") && name(path).ends_with(".safetensors"));
            // The number of steps has a fixed width, so names sort by age.
            paths.sort_by_key(|path| std::cmp::Reverse(name(path)));
            Ok(paths)
        };
        list().with_context(|| format!("cannot list checkpoints in {}", self.folder.display()))
    }
}
