//! The training curve: one JSON line per step, with deterministic values only. It is written to the working folder
//! during training, so that it can be watched; a checkpoint records its length.

use super::{checkpoint::Position, method::StepOutput};
use anyhow::{Context as _, Result, bail};
use caco_kinds::Collapse;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
    ser::SerializeMap as _,
};
use std::{
    borrow::Cow,
    fmt,
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
};
use tch::{Device, Kind, Tensor};

/// The metrics of one step. In a file it is an object of `epoch`, `step`, the values in their order, and `knn`.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Epoch, from 0.
    pub epoch: u64,
    /// Step, counted over all epochs from 1.
    pub step: u64,
    /// By name: `loss`, the metrics of the method, `gradient_norm`, `spread`, and the rates.
    pub values: Vec<(Cow<'static, str>, f64)>,
    /// kNN accuracy on the monitor's images, if it was measured after this step.
    pub knn: Option<f64>,
}

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("epoch", &self.epoch)?;
        map.serialize_entry("step", &self.step)?;
        for (name, value) in &self.values {
            map.serialize_entry(name, value)?;
        }
        if let Some(knn) = self.knn {
            map.serialize_entry("knn", &knn)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Row {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Columns)
    }
}

struct Columns;

impl<'de> Visitor<'de> for Columns {
    type Value = Row;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a row of a curve")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Row, M::Error> {
        let (mut epoch, mut step, mut values, mut knn) = (None, None, vec![], None);
        while let Some(name) = map.next_key::<String>()? {
            match name.as_str() {
                "epoch" => epoch = Some(map.next_value()?),
                "step" => step = Some(map.next_value()?),
                "knn" => knn = Some(map.next_value()?),
                _ => values.push((name.into(), map.next_value()?)),
            }
        }
        let missing = |field| move || serde::de::Error::missing_field(field);
        Ok(Row { epoch: epoch.ok_or_else(missing("epoch"))?, step: step.ok_or_else(missing("step"))?, values, knn })
    }
}

/// Below this standard deviation (times √C) the queries count as collapsed.
const COLLAPSED: f64 = 1e-3;

/// Metrics of steps that are still on the device; reading them waits for it.
#[derive(Default)]
pub struct Pending {
    figures: Vec<Tensor>,
    rows: Vec<(Position, Vec<&'static str>, Rates)>,
}

/// The rates of a step, by name.
type Rates = Vec<(&'static str, f64)>;

impl Pending {
    /// Adds the output of step `at`. All steps have the same metrics.
    pub fn push(&mut self, output: &StepOutput, at: Position) {
        let StepOutput { loss, metrics, gradient_norm, spread, rates, .. } = output;
        let mut named = vec![("loss", loss)];
        named.extend(metrics.iter().map(|(name, metric)| (*name, metric)));
        named.extend([("gradient_norm", gradient_norm), ("spread", spread)]);
        let (names, figures): (Vec<_>, Vec<_>) =
            named.into_iter().map(|(name, figure)| (name, figure.to_kind(Kind::Float))).unzip();
        self.figures.push(Tensor::stack(&figures, 0));
        self.rows.push((at, names, rates.clone()));
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
        let mut figures = figures.into_iter().map(f64::from);
        let row = |(at, names, rates): (Position, Vec<&'static str>, Rates)| {
            let measured: Vec<_> = names.into_iter().zip(figures.by_ref()).collect();
            let values = measured.into_iter().chain(rates).map(|(name, value)| (Cow::Borrowed(name), value)).collect();
            Row { epoch: at.epoch, step: at.done + 1, values, knn: None }
        };
        Ok(std::mem::take(&mut self.rows).into_iter().map(row).collect())
    }
}

impl Row {
    /// The value of this name.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.values.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
    }

    /// An error if training cannot continue: a non-finite number, or a collapse unless `collapse` allows it.
    pub fn check(&self, collapse: Collapse) -> Result<()> {
        let Row { epoch, step, values, .. } = self;
        if let Some((name, value)) = values.iter().find(|(_, value)| !value.is_finite()) {
            bail!("{name} is {value} at step {step} (epoch {epoch}); a lower `rate` or more `warmup` may help");
        }
        let Some(spread) = self.get("spread").filter(|spread| *spread < COLLAPSED) else { return Ok(()) };
        if collapse == Collapse::Stop {
            bail!(
                "the encoder has collapsed: at step {step} (epoch {epoch}) all queries point in the same direction \
                 (standard deviation × √C = {spread:.1e}); a lower `rate` or another temperature may help, \
                 or set `collapse: Continue` if the collapse is a finding"
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
