//! Text that programs wrote, for a terminal: control characters could clear it, rename it or overwrite what was printed
//! before, so they are shown and not sent.

use std::{borrow::Cow, fmt::Write};

/// The text with control characters as escapes, apart from tabs and line breaks: `\x1b` for an escape character.
pub fn printable(text: &str) -> Cow<'_, str> {
    let is_sent = |c: char| !c.is_control() || matches!(c, '\t' | '\n');
    if text.chars().all(is_sent) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            c if is_sent(c) => shown.push(c),
            '\r' => shown.push_str("\\r"),
            c if c.is_ascii() => write!(shown, "\\x{:02x}", c as u32).expect("a string takes all text"),
            c => write!(shown, "{}", c.escape_unicode()).expect("a string takes all text"),
        }
    }
    shown.into()
}

/// The last lines of a log, printable, and none too long. Of a line that was drawn over again and again, as progress bars
/// are, the last state.
pub fn tail(log: &str, lines: usize) -> Vec<String> {
    let all: Vec<&str> = log.lines().collect();
    all[all.len().saturating_sub(lines)..].iter().map(|line| shown(line)).collect()
}

/// The most characters of a line in [`tail`].
const LONGEST: usize = 1000;

fn shown(line: &str) -> String {
    let line = line.trim_end_matches('\r');
    let last = line.rsplit('\r').next().unwrap_or(line);
    match last.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", printable(&last[..end])),
        None => printable(last).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown_and_not_sent() {
        assert_eq!(printable("a\tb\né✓\n"), "a\tb\né✓\n");
        assert_eq!(printable("\x1b[2J\x07\x7f\0\u{9b}31m\r"), "\\x1b[2J\\x07\\x7f\\x00\\u{9b}31m\\r");
    }

    #[test]
    fn of_a_progress_bar_the_last_state_is_left() {
        assert_eq!(tail("a\r\n1%\r2%\r3%\nb\r", 3), ["a", "3%", "b"]);
        assert_eq!(tail("a\nb\nc\n", 2), ["b", "c"]);
        assert_eq!(tail(&"x".repeat(5000), 1)[0].chars().count(), LONGEST + 1);
    }
}
