//! How far a transfer of bytes is: a bar on a terminal, now and then a line elsewhere.

use super::{bytes, drawable};
use indicatif::{ProgressBar, ProgressStyle};
use std::time::{Duration, Instant};

/// Between two lines that say how far it is.
const PAUSE: Duration = Duration::from_secs(10);

/// One that is under way.
pub struct Transfer {
    what: String,
    bar: Option<ProgressBar>,
    told: Instant,
}

impl Transfer {
    /// Begins with `what`, said in a few words.
    pub fn new(what: String) -> Self {
        let bar = drawable().then(|| ProgressBar::no_length().with_message(what.clone()).with_style(style(false)));
        match &bar {
            Some(bar) => bar.tick(),
            None => eprintln!("{what}"),
        }
        Transfer { what, bar, told: Instant::now() }
    }

    /// It has come so far, of so much where that is known.
    pub fn at(&mut self, done: u64, total: Option<u64>) {
        if let Some(bar) = &self.bar {
            if bar.length() != total {
                bar.set_style(style(total.is_some()));
                total.into_iter().for_each(|total| bar.set_length(total));
                // What was there before is no speed.
                bar.set_position(done);
                bar.reset_eta();
            }
            bar.set_position(done);
        } else if self.told.elapsed() >= PAUSE {
            self.told = Instant::now();
            eprintln!("{}: {}", self.what, share(done, total));
        }
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
            eprintln!("{}", self.what);
        }
    }
}

fn style(whole: bool) -> ProgressStyle {
    let template = match whole {
        true => "{msg}  {wide_bar} {bytes} of {total_bytes}  {bytes_per_sec}  {eta} left",
        false => "{msg}  {bytes}  {bytes_per_sec}",
    };
    ProgressStyle::with_template(template).expect("the template is one of these two")
}

fn share(done: u64, total: Option<u64>) -> String {
    match total.filter(|total| *total > 0) {
        Some(total) => {
            format!("{} of {} ({} %)", bytes(done), bytes(total), u128::from(done) * 100 / u128::from(total))
        }
        None => bytes(done),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_needs_a_whole() {
        assert_eq!(share(1 << 30, Some(4 << 30)), "1.00 GiB of 4.00 GiB (25 %)");
        assert_eq!(share(1 << 30, None), "1.00 GiB");
        assert_eq!(share(0, Some(0)), "0 B");
    }

    #[test]
    fn both_templates_can_be_read() {
        style(true);
        style(false);
    }
}
