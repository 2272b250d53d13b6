//! The terminal on stderr: permanent lines that scroll, and below them a part that is redrawn.
//!
//! indicatif pads every line to the last column and lets it wrap, so a terminal that is made narrower treats all of the
//! output as one long line. Here each line ends where its text does, and a redraw is a single write, which avoids
//! flicker.

use std::{
    io::{self, Write},
    sync::Mutex,
};

/// The number of lines in the redrawn part. Global, because there is only one stderr.
static DRAWN: Mutex<usize> = Mutex::new(0);

/// Between these, a terminal with synchronized output shows no partial redraw. Others ignore them.
const HOLD: &str = "\x1b[?2026h";
const SHOW: &str = "\x1b[?2026l";

/// The size of the terminal: rows and columns.
pub fn size() -> (usize, usize) {
    let (rows, columns) = console::Term::stderr().size();
    (rows.into(), columns.into())
}

/// Prints permanent lines, and redraws the part below them. A closed terminal is not an error.
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

/// Prints a message on stderr. A closed or full stderr is ignored.
macro_rules! say {
    ($($text:tt)*) => { $crate::display::screen::say(format!($($text)*)) };
}

/// Prints a line on stderr, in one write. See [`say!`].
pub fn say(mut line: String) {
    line.push('\n');
    let _ = io::stderr().write_all(line.as_bytes());
}

/// A writer to stderr for other output: prints above the redrawn part, which reappears with the next redraw.
pub struct Above;

impl Write for Above {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let drawn = *DRAWN.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) > 0;
        if drawn {
            show(&String::from_utf8_lossy(bytes), &[]);
        } else {
            // An error would make the caller print one, on the same stderr, and panic.
            let _ = io::stderr().write_all(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let _ = io::stderr().flush();
        Ok(())
    }
}
