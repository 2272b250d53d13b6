//! Follows the curves of a training while it runs, and renders them for a terminal. The fields have no meaning here:
//! each number in a line is a point of the curve with its name.

use super::chart::{plot, sparkline};
use anyhow::{Context as _, Result};
use serde_json::{Map, Value};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

/// The field shown as a plot instead of a sparkline.
const PLOTTED: &str = "loss";
/// Fields that are counters, not curves.
const COUNTERS: [&str; 2] = ["step", "epoch"];
const HEIGHT: usize = 8;

/// A file of JSON lines that may grow.
#[derive(Debug)]
pub struct Follower {
    path: PathBuf,
    read: u64,
    rest: String,
    series: BTreeMap<String, Vec<f64>>,
}

impl Follower {
    /// Follows a file that need not exist yet.
    pub fn of(path: PathBuf) -> Self {
        Follower { path, read: 0, rest: String::new(), series: BTreeMap::new() }
    }

    /// Reads the lines added since the last call; starts over if the file was truncated, as a resumed training does.
    pub fn read(&mut self) -> Result<()> {
        let context = |path: &Path| format!("cannot read {}", path.display());
        let Ok(mut file) = File::open(&self.path) else { return Ok(()) };
        let length = file.metadata().with_context(|| context(&self.path))?.len();
        if length < self.read {
            *self = Follower::of(self.path.clone());
        }
        file.seek(SeekFrom::Start(self.read)).with_context(|| context(&self.path))?;
        let mut added = Vec::new();
        self.read += file.read_to_end(&mut added).with_context(|| context(&self.path))? as u64;
        self.rest += &String::from_utf8_lossy(&added);
        // An incomplete line is left for the next call.
        let whole = self.rest.rfind('\n').map_or(0, |end| end + 1);
        for line in self.rest.drain(..whole).collect::<String>().lines() {
            let Ok(row) = serde_json::from_str::<Map<String, Value>>(line) else { continue };
            for (name, value) in row {
                if let Some(value) = value.as_f64() {
                    self.series.entry(name).or_default().push(value);
                }
            }
        }
        Ok(())
    }

    fn last(&self, name: &str) -> Option<f64> {
        self.series.get(name).and_then(|values| values.last().copied())
    }

    /// The newest value of each field, including those of `pace`.
    pub fn newest(&self, pace: &Follower) -> Map<String, Value> {
        let names = self.series.iter().chain(pace.series.iter().filter(|(name, _)| *name != "step"));
        names.filter_map(|(name, values)| Some((name.clone(), Value::from(*values.last()?)))).collect()
    }
}

/// Renders the curves as text, in lines of about `width` characters.
pub fn render(name: &str, curve: &Follower, pace: &Follower, width: usize) -> String {
    let count = |name| curve.last(name).map_or("–".into(), |n| format!("{n}"));
    let mut text = format!("{name}  epoch {}, step {}", count("epoch"), count("step"));
    if let (Some(rate), Some(wait)) = (pace.last("images_per_second"), pace.last("loader_wait")) {
        text += &format!("  {rate:.0} images/s, {:.0} % of the time waiting for the loader", 100.0 * wait);
    }
    text.push('\n');
    // Name, newest value, then the curve.
    const LABEL: usize = 30;
    let room = width.saturating_sub(LABEL).clamp(10, 120);
    if let Some(values) = curve.series.get(PLOTTED) {
        let lines = plot(values, room, HEIGHT);
        for (i, line) in lines.iter().enumerate() {
            let label = if i == 0 { label(PLOTTED, values) } else { String::new() };
            text += &format!("{label:LABEL$}{line}\n");
        }
    }
    let shown = |name: &str| name != PLOTTED && !COUNTERS.contains(&name);
    for (name, values) in curve.series.iter().filter(|(name, _)| shown(name)) {
        text += &format!("{:LABEL$}{}\n", label(name, values), sparkline(values, room));
    }
    text
}

fn label(name: &str, values: &[f64]) -> String {
    let value = values.last().copied().unwrap_or(f64::NAN);
    let digits = if value.abs() < 1e-3 && value != 0.0 { format!("{value:.2e}") } else { format!("{value:.4}") };
    format!("{name:16}{digits:>12}  ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, io::Write};

    #[test]
    fn a_curve_is_followed_as_it_grows_and_shrinks() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("curve.jsonl");
        let mut follower = Follower::of(path.clone());
        follower.read().unwrap();
        fs::write(&path, "{\"step\":1,\"loss\":2.5}\n{\"step\":2,\"lo").unwrap();
        follower.read().unwrap();
        assert_eq!(follower.series["loss"], [2.5]);
        fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"ss\":1.5}\n").unwrap();
        follower.read().unwrap();
        assert_eq!((follower.series["loss"].as_slice(), follower.last("step")), ([2.5, 1.5].as_slice(), Some(2.0)));
        fs::write(&path, "{\"step\":1,\"loss\":2.5}\n").unwrap();
        follower.read().unwrap();
        assert_eq!(follower.series["loss"], [2.5]);
    }

    #[test]
    fn curves_are_drawn_with_their_newest_values() {
        let mut curve = Follower::of("".into());
        for (name, last) in [("loss", 4.25), ("spread", 0.9), ("step", 31.0), ("epoch", 1.0), ("rate", 1e-5)] {
            let values = (0..32).map(|i| last + f64::from(31 - i) / 8.0).collect();
            curve.series.insert(name.into(), values);
        }
        let mut pace = Follower::of("".into());
        pace.series = [("images_per_second".into(), vec![310.4]), ("loader_wait".into(), vec![0.021])].into();
        insta::assert_snapshot!(render("pretrain/short", &curve, &pace, 70));
    }
}
