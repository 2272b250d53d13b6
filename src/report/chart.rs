//! Draws curves in a terminal.

/// The mean of each of `columns` equal parts of a curve; one value per column if there are fewer.
fn columns(values: &[f64], columns: usize) -> Vec<f64> {
    let count = columns.min(values.len());
    let part = |i: usize| &values[i * values.len() / count..(i + 1) * values.len() / count];
    (0..count).map(|i| part(i).iter().sum::<f64>() / part(i).len() as f64).collect()
}

/// Smallest and largest.
fn range(values: &[f64]) -> (f64, f64) {
    values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(*v), high.max(*v)))
}

/// Which of `levels` a value reaches between `low` and `high`, from 0. A flat curve is drawn in the middle.
fn level(value: f64, (low, high): (f64, f64), levels: usize) -> usize {
    if high <= low {
        return levels / 2;
    }
    (((value - low) / (high - low) * levels as f64) as usize).min(levels - 1)
}

/// A curve in one line of at most `width` characters.
pub fn sparkline(values: &[f64], width: usize) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let values = columns(values, width);
    let range = range(&values);
    values.iter().map(|v| BARS[level(*v, range, BARS.len())]).collect()
}

/// A curve in `height` lines of at most `width` characters, with two values per character and four levels per line
/// (Braille).
pub fn plot(values: &[f64], width: usize, height: usize) -> Vec<String> {
    // The dots of a character, from the top: left column, right column.
    const DOTS: [[u8; 2]; 4] = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];
    let values = columns(values, 2 * width);
    let (range, levels) = (range(&values), 4 * height);
    let mut cells = vec![vec![0u8; values.len().div_ceil(2)]; height];
    let mut last = None;
    for (x, value) in values.iter().enumerate() {
        let y = levels - 1 - level(*value, range, levels);
        // A steep segment is drawn as a line, not as two dots.
        let from = last.map_or(y, |last: usize| if last < y { last + 1 } else { last.saturating_sub(1).max(y) });
        for y in from.min(y)..=from.max(y) {
            cells[y / 4][x / 2] |= DOTS[y % 4][x % 2];
        }
        last = Some(y);
    }
    let character = |dots: &u8| char::from_u32(0x2800 + u32::from(*dots)).unwrap_or(' ');
    cells.iter().map(|line| line.iter().map(character).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sparkline_goes_from_lowest_to_highest() {
        assert_eq!(sparkline(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], 80), "▁▂▃▄▅▆▇█");
        assert_eq!(sparkline(&[3.0, 3.0], 80), "▅▅");
        assert_eq!(sparkline(&[0.0, 0.0, 8.0, 8.0], 2), "▁█");
        assert_eq!(sparkline(&[], 80), "");
    }

    #[test]
    fn a_plot_falls_where_its_curve_falls() {
        let falling: Vec<f64> = (0..40).map(|i| (-f64::from(i) / 8.0).exp()).collect();
        insta::assert_snapshot!(plot(&falling, 20, 4).join("\n"));
        assert_eq!(plot(&[1.0, 1.0], 20, 1), ["⠒"]);
    }
}
