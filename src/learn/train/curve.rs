//! The training curve: one JSON line per step, with deterministic values only. It is written to the working folder
//! during training, so that it can be watched; a checkpoint records its length.

use super::{
    caco::{Rates, StepOutput},
    checkpoint::Position,
};
use anyhow::{Context as _, Result, bail};
use caco_kinds::Collapse;
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
};
use tch::{Device, Kind, Tensor};

/// The metrics of one step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Epoch, from 0.
    pub epoch: u64,
    /// Step, counted over all epochs from 1.
    pub step: u64,
    /// The loss.
    pub loss: f64,
    /// Mean probability of the positives.
    pub positive: f64,
    /// Mean length of the bank's columns.
    pub bank_norm: f64,
    /// Norm of the full gradient of the encoder.
    pub gradient_norm: f64,
    /// Standard deviation of the queries times √C: about 1 normally, 0 after a collapse.
    pub spread: f64,
    /// Learning rate of the encoder.
    pub rate: f64,
    /// Learning rate of the bank.
    pub bank_rate: f64,
    /// Momentum of the key encoder.
    pub key_momentum: f64,
    /// kNN accuracy on the monitor's images, if it was measured after this step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub knn: Option<f64>,
}

/// Below this standard deviation (times √C) the queries count as collapsed.
const COLLAPSED: f64 = 1e-3;

/// Metrics of steps that are still on the device; reading them waits for it.
#[derive(Default)]
pub struct Pending {
    figures: Vec<Tensor>,
    rows: Vec<(Position, Rates)>,
}

impl Pending {
    /// Adds the output of step `at`.
    pub fn push(&mut self, output: &StepOutput, at: Position, rates: Rates) {
        let StepOutput { loss, positive, bank_norm, gradient_norm, spread, .. } = output;
        let figures = [loss, positive, bank_norm, gradient_norm, spread].map(|x| x.to_kind(Kind::Float));
        self.figures.push(Tensor::stack(&figures, 0));
        self.rows.push((at, rates));
    }

    /// Number of pending steps.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether no steps are pending.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Waits for the device and returns the rows.
    pub fn read(&mut self) -> Result<Vec<Row>> {
        if self.is_empty() {
            return Ok(vec![]);
        }
        let figures = Tensor::stack(&std::mem::take(&mut self.figures), 0).to_device(Device::Cpu);
        let figures: Vec<f32> = Vec::try_from(figures.reshape(-1)).context("metrics of the last steps")?;
        let row = |((at, rates), figures): ((Position, Rates), &[f32])| Row {
            epoch: at.epoch,
            step: at.done + 1,
            loss: figures[0].into(),
            positive: figures[1].into(),
            bank_norm: figures[2].into(),
            gradient_norm: figures[3].into(),
            spread: figures[4].into(),
            rate: rates.encoder,
            bank_rate: rates.bank,
            key_momentum: rates.key_momentum,
            knn: None,
        };
        Ok(std::mem::take(&mut self.rows).into_iter().zip(figures.chunks(5)).map(row).collect())
    }
}

impl Row {
    /// An error if training cannot continue: a non-finite number, or a collapse unless `collapse` allows it.
    pub fn check(&self, collapse: Collapse) -> Result<()> {
        let Row { epoch, step, .. } = self;
        let figures = [
            ("loss", self.loss),
            ("gradient_norm", self.gradient_norm),
            ("bank_norm", self.bank_norm),
            ("spread", self.spread),
        ];
        for (name, value) in figures {
            if !value.is_finite() {
                bail!("{name} is {value} at step {step} (epoch {epoch}); a lower `rate` or more `warmup` may help");
            }
        }
        if collapse == Collapse::Stop && self.spread < COLLAPSED {
            bail!(
                "the encoder has collapsed: at step {step} (epoch {epoch}) all queries point in the same direction \
                 (standard deviation × √C = {:.1e}); a lower `rate` or another `temperature` may help, \
                 or set `collapse: Continue` if the collapse is a finding",
                self.spread
            );
        }
        Ok(())
    }
}

/// The curve's file.
#[derive(Debug)]
pub struct Curve {
    path: PathBuf,
    file: File,
    length: u64,
}

impl Curve {
    /// Opens the curve at `path` and truncates it to `length` bytes, the length at the checkpoint. An error if it is
    /// shorter.
    pub fn open(path: &Path, length: u64) -> Result<Self> {
        let context = || format!("cannot open the curve {}", path.display());
        let mut options = OpenOptions::new();
        let file = options.create(true).append(true).open(path).with_context(context)?;
        let found = file.metadata().with_context(context)?.len();
        if found < length {
            bail!(
                "{} has {found} bytes, its checkpoint records {length}; delete the folder to start over",
                path.display()
            );
        }
        file.set_len(length).with_context(context)?;
        Ok(Curve { path: path.into(), file, length })
    }

    /// Adds rows.
    pub fn append(&mut self, rows: &[Row]) -> Result<()> {
        let mut text = Vec::new();
        for row in rows {
            serde_json::to_writer(&mut text, row)?;
            text.push(b'\n');
        }
        self.file.write_all(&text).with_context(|| format!("cannot write {}", self.path.display()))?;
        self.length += text.len() as u64;
        Ok(())
    }

    /// Syncs the file to disk and returns its length.
    pub fn sync(&mut self) -> Result<u64> {
        self.file.sync_data().with_context(|| format!("cannot sync {}", self.path.display()))?;
        Ok(self.length)
    }

    /// Copies the whole curve to `to`.
    pub fn copy(&self, to: &Path) -> Result<()> {
        fs::copy(&self.path, to).with_context(|| format!("cannot copy the curve to {}", to.display()))?;
        Ok(())
    }
}

/// Reads a curve. An error names the malformed line.
pub fn read(path: &Path) -> Result<Vec<Row>> {
    let file = File::open(path).with_context(|| format!("cannot open the curve {}", path.display()))?;
    let row = |(number, line): (usize, std::io::Result<String>)| {
        let place = || format!("{} line {}", path.display(), number + 1);
        serde_json::from_str(&line.with_context(place)?).with_context(place)
    };
    BufReader::new(file).lines().enumerate().map(row).collect()
}
