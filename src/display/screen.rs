//! The terminal under stderr: lines that stay and scroll, and below them a part that is drawn again and again.
//!
//! indicatif fills every line up to the last column and lets it wrap, so that a terminal that is made narrower takes all
//! that was printed for one long line. Here each line ends where its text does, and a drawing is one write: no flicker.

use std::{
    io::{self, Write},
    sync::Mutex,
};

/// Lines of the part that is drawn again. There is one stderr.
static DRAWN: Mutex<usize> = Mutex::new(0);

/// Between these a terminal that knows them shows nothing half drawn; others pass them over.
const HOLD: &str = "\x1b[?2026h";
const SHOW: &str = "\x1b[?2026l";

/// Rows and columns.
pub fn size() -> (usize, usize) {
    let (rows, columns) = console::Term::stderr().size();
    (rows.into(), columns.into())
}

/// Prints lines that stay, and draws the part below them anew. A terminal that is gone is no error of the run's.
pub fn show(above: &str, below: &[String]) {
    let mut drawn = DRAWN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let mut text = String::from(HOLD);
    if *drawn > 0 {
        text += &format!("\x1b[{drawn}A\r");
    }
    for line in above.lines().chain(below.iter().map(String::as_str)) {
        text += line;
        text += "\x1b[K\n";
    }
    text += "\x1b[J";
    text += SHOW;
    *drawn = below.len();
    let _ = io::stderr().write_all(text.as_bytes());
}

/// Stderr for what is said besides: above the part that is drawn again, which comes back with the next drawing.
pub struct Above;

impl Write for Above {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let drawn = *DRAWN.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) > 0;
        if drawn {
            show(&String::from_utf8_lossy(bytes), &[]);
        } else {
            io::stderr().write_all(bytes)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
