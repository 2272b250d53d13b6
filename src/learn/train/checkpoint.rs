//! The full state of a training, as a file: everything a resumed run needs to produce the same bytes as an
//! uninterrupted one.

use super::caco::State;
use crate::{
    model::{Bank, Shape, weights::channels_last},
    tensors::Tensors,
};
use anyhow::{Context as _, Result, bail, ensure};
use caco_kinds::Model;
use std::{
    fs, io,
    path::{Path, PathBuf},
};
use tch::{Device, Kind, Tensor};

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

/// A state with its model and position.
#[derive(Debug)]
pub struct Checkpoint {
    /// The description of the network.
    pub model: Model,
    /// The position of the training.
    pub position: Position,
    /// Encoders, bank, optimizer.
    pub state: State,
}

/// Writes a state as safetensors: `query.*`, `key.*` (buffers among them), `bank.columns`, `bank.velocity`,
/// `momentum.*`; the model and the position are metadata. The write is atomic; equal states give equal bytes.
pub fn save(path: &Path, model: &Model, position: Position, state: &State) -> Result<()> {
    let mut file = Tensors::default();
    file.extend("query.", state.query.weights().named());
    file.extend("key.", state.key.weights().named());
    file.extend("momentum.", state.query.weights().parameters().map(|(name, _)| name).zip(&state.momentum));
    file.insert("bank.columns", &state.bank.columns);
    file.insert("bank.velocity", &state.bank.velocity);
    file.metadata.insert("model".into(), serde_json::to_string(model)?);
    let Position { epoch, step, done, curve } = position;
    for (name, value) in [("epoch", epoch), ("step", step), ("done", done), ("curve", curve)] {
        file.metadata.insert(name.into(), value.to_string());
    }
    file.write(path)
}

/// Reads a file written by [`save`]; missing, unexpected and misshaped tensors are an error that names them.
pub fn load(path: &Path, device: Device) -> Result<Checkpoint> {
    let file = Tensors::read(path)?;
    parse(file, device).with_context(|| format!("{} is not a training state", path.display()))
}

fn parse(mut file: Tensors, device: Device) -> Result<Checkpoint> {
    let said = |name: &str| file.metadata.get(name).with_context(|| format!("its metadata lacks '{name}'"));
    let number = |name: &str| -> Result<u64> { said(name)?.parse().with_context(|| format!("its '{name}'")) };
    let position =
        Position { epoch: number("epoch")?, step: number("step")?, done: number("done")?, curve: number("curve")? };
    let model: Model = serde_json::from_str(said("model")?).context("its metadata's 'model'")?;
    let shape = Shape::from(&model);
    let mut network = |prefix: &str| {
        shape.load(file.take(prefix), Kind::Float, device).with_context(|| format!("its tensors '{prefix}*'"))
    };
    let (query, key) = (network("query.")?.trainable(true), network("key.")?);
    let mut momenta = file.take("momentum.");
    let mut momentum = Vec::new();
    for (name, parameter) in query.weights().parameters() {
        let Some(tensor) = momenta.remove(name) else { bail!("'momentum.{name}' is missing") };
        ensure!(tensor.size() == parameter.size(), "'momentum.{name}' has shape {:?}", tensor.size());
        momentum.push(channels_last(&tensor.to_device(device)));
    }
    let mut bank = |name: &str| -> Result<Tensor> {
        let tensor = file.tensors.remove(name).with_context(|| format!("'{name}' is missing"))?;
        ensure!(
            tensor.dim() == 2 && tensor.size()[0] == i64::from(model.dim),
            "'{name}' has shape {:?}",
            tensor.size()
        );
        Ok(tensor.to_device(device))
    };
    let bank = Bank { columns: bank("bank.columns")?, velocity: bank("bank.velocity")? };
    ensure!(bank.columns.size() == bank.velocity.size(), "'bank.velocity' has shape {:?}", bank.velocity.size());
    let left: Vec<&String> = momenta.keys().chain(file.tensors.keys()).take(8).collect();
    ensure!(left.is_empty(), "{left:?} are not part of a training state");
    Ok(Checkpoint { model, position, state: State { query, key, bank, momentum } })
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
    pub fn save(&self, model: &Model, position: Position, state: &State) -> Result<()> {
        save(&self.folder.join(format!("checkpoint-{:012}.safetensors", position.done)), model, position, state)?;
        for old in self.newest_first()?.iter().skip(2) {
            fs::remove_file(old).with_context(|| format!("cannot delete {}", old.display()))?;
        }
        Ok(())
    }

    /// The newest readable checkpoint, if there is one; unreadable ones are logged and skipped.
    pub fn newest(&self, device: Device) -> Result<Option<Checkpoint>> {
        for path in self.newest_first()? {
            match load(&path, device) {
                Ok(checkpoint) => return Ok(Some(checkpoint)),
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
