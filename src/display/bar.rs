//! How far one thing is, a download or a survey: a bar on a terminal, now and then a line elsewhere.

use super::{bytes, drawable};
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use std::{
    io::Write,
    time::{Duration, Instant},
};

/// Between two lines that say how far it is.
const PAUSE: Duration = Duration::from_secs(10);

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Images.
    Images,
}

/// One thing under way.
pub struct Bar {
    what: String,
    unit: Unit,
    bar: Option<ProgressBar>,
    told: Instant,
}

impl Bar {
    /// Begins with `what`, said in a few words.
    pub fn new(what: String, unit: Unit) -> Self {
        let bar = || ProgressBar::no_length().with_message(what.clone()).with_style(unit.style(false));
        let bar = drawable().then(bar);
        match &bar {
            Some(bar) => bar.tick(),
            None => tell(&what),
        }
        Bar { what, unit, bar, told: Instant::now() }
    }

    /// It has come so far, of so much where that is known.
    pub fn at(&mut self, done: u64, total: Option<u64>) {
        if let Some(bar) = &self.bar {
            if bar.length() != total {
                bar.set_style(self.unit.style(total.is_some()));
                total.into_iter().for_each(|total| bar.set_length(total));
                // What was there before is no speed.
                bar.set_position(done);
                bar.reset_eta();
            }
            bar.set_position(done);
        } else if self.told.elapsed() >= PAUSE {
            self.told = Instant::now();
            tell(&format!("{}: {}", self.what, self.unit.share(done, total)));
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
            tell(&self.what);
        }
    }
}

/// Prints a line. Nobody may be listening any more; the work goes on.
fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

impl Unit {
    fn style(self, whole: bool) -> ProgressStyle {
        let template = match (self, whole) {
            (Unit::Bytes, true) => "{msg}  {wide_bar} {bytes} of {total_bytes}  {bytes_per_sec}  {eta} left",
            (Unit::Bytes, false) => "{msg}  {bytes}  {bytes_per_sec}",
            (Unit::Images, true) => "{msg}  {wide_bar} {human_pos} of {human_len}  {per_sec}  {eta} left",
            (Unit::Images, false) => "{msg}  {human_pos}  {per_sec}",
        };
        ProgressStyle::with_template(template).expect("the template is one of these")
    }

    fn share(self, done: u64, total: Option<u64>) -> String {
        let told = |n| match self {
            Unit::Bytes => bytes(n),
            Unit::Images => HumanCount(n).to_string(),
        };
        match total.filter(|total| *total > 0) {
            Some(total) => {
                format!("{} of {} ({} %)", told(done), told(total), u128::from(done) * 100 / u128::from(total))
            }
            None => told(done),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_needs_a_whole() {
        assert_eq!(Unit::Bytes.share(1 << 30, Some(4 << 30)), "1.00 GiB of 4.00 GiB (25 %)");
        assert_eq!(Unit::Bytes.share(1 << 30, None), "1.00 GiB");
        assert_eq!(Unit::Bytes.share(0, Some(0)), "0 B");
        assert_eq!(Unit::Images.share(1200, Some(48_000)), "1,200 of 48,000 (2 %)");
    }

    #[test]
    fn all_templates_can_be_read() {
        for unit in [Unit::Bytes, Unit::Images] {
            unit.style(true);
            unit.style(false);
        }
    }
}
