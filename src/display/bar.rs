//! Progress of a single operation, such as a download or a survey: a bar on a terminal, occasional lines elsewhere.

use super::{bytes, drawable};
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use std::{
    io::Write,
    time::{Duration, Instant},
};

/// Time between two progress lines.
const PAUSE: Duration = Duration::from_secs(10);

/// The unit of progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Images.
    Images,
}

/// The progress of one operation.
pub struct Bar {
    what: String,
    unit: Unit,
    bar: Option<ProgressBar>,
    printed: Instant,
}

impl Bar {
    /// Starts the display of an operation, described by `what` in a few words.
    pub fn new(what: String, unit: Unit) -> Self {
        let bar = || ProgressBar::no_length().with_message(what.clone()).with_style(unit.style(false));
        let bar = drawable().then(bar);
        match &bar {
            Some(bar) => bar.tick(),
            None => print(&what),
        }
        Bar { what, unit, bar, printed: Instant::now() }
    }

    /// Updates the progress to `done`, of `total` if that is known.
    pub fn at(&mut self, done: u64, total: Option<u64>) {
        if let Some(bar) = &self.bar {
            if bar.length() != total {
                bar.set_style(self.unit.style(total.is_some()));
                total.into_iter().for_each(|total| bar.set_length(total));
                // Progress made earlier must not count towards the speed.
                bar.set_position(done);
                bar.reset_eta();
            }
            bar.set_position(done);
        } else if self.printed.elapsed() >= PAUSE {
            self.printed = Instant::now();
            print(&format!("{}: {}", self.what, self.unit.share(done, total)));
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
            print(&self.what);
        }
    }
}

/// Prints a line. Ignores errors: stderr may be closed, and the work continues.
fn print(line: &str) {
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
        ProgressStyle::with_template(template).expect("the template is valid")
    }

    fn share(self, done: u64, total: Option<u64>) -> String {
        let format = |n| match self {
            Unit::Bytes => bytes(n),
            Unit::Images => HumanCount(n).to_string(),
        };
        match total.filter(|total| *total > 0) {
            Some(total) => {
                format!("{} of {} ({} %)", format(done), format(total), u128::from(done) * 100 / u128::from(total))
            }
            None => format(done),
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
