//! PNM: grey and colour images as text, and those whose largest number is not 255. The `image` crate scales their
//! samples by other rules than Pillow, and reads no comments between them.

use super::PIXELS_MAX;
use anyhow::{Context, Result, ensure};
use caco_views::Raster;

/// What a file says of its image.
struct Header {
    /// Whether samples are written as text.
    text: bool,
    colour: bool,
    width: usize,
    height: usize,
    /// The sample that means full brightness.
    most: u32,
}

/// Decodes the image; `None` if the `image` crate does it the same way.
pub fn decode(file: &[u8]) -> Result<Option<Raster>> {
    let mut words = Words { rest: file };
    let Some(header) = Header::read(&mut words) else { return Ok(None) };
    let (width, height) = (header.width, header.height);
    let fits = width.checked_mul(height).is_some_and(|pixels| pixels <= PIXELS_MAX);
    ensure!(fits, "{width} x {height} pixels are more than {PIXELS_MAX}");
    let count = width * height * if header.colour { 3 } else { 1 };
    let samples =
        if header.text { words.samples(count, header.most)? } else { binary(words.rest, count, header.most)? };
    let bytes = header.bytes();
    let bytes = samples.iter().map(|sample| bytes[usize::from(*sample)]);
    let pixels = match header.colour {
        false => bytes.map(|v| [v, v, v, 255]).collect(),
        true => bytes.collect::<Vec<u8>>().as_chunks::<3>().0.iter().map(|&[r, g, b]| [r, g, b, 255]).collect(),
    };
    Ok(Some(Raster { width, height, pixels }))
}

impl Header {
    fn read(words: &mut Words) -> Option<Self> {
        let (magic, rest) = words.rest.split_at_checked(2)?;
        words.rest = rest;
        let (text, colour) = match magic {
            b"P2" => (true, false),
            b"P3" => (true, true),
            b"P5" => (false, false),
            b"P6" => (false, true),
            _ => return None,
        };
        let mut number = || words.number()?.ok();
        let (width, height, most) = (number()? as usize, number()? as usize, number()?);
        let read_here = (1..1 << 16).contains(&most) && (text || most != 255);
        read_here.then_some(Header { text, colour, width, height, most })
    }

    /// The byte for each sample. Pillow reads a grey image of more than eight bits in a mode of its own, whose
    /// conversion clamps to 255; it rounds halves to even numbers.
    fn bytes(&self) -> Vec<u8> {
        let wide = self.most > 255 && !self.colour;
        let scale = if wide { 65535.0 } else { 255.0 };
        let byte = |sample: u32| (f64::from(sample) / f64::from(self.most) * scale).round_ties_even().min(255.0) as u8;
        (0..1 << 16).map(byte).collect()
    }
}

/// Samples of one byte, or of two if the largest number needs them.
fn binary(bytes: &[u8], count: usize, most: u32) -> Result<Vec<u16>> {
    let width = if most < 256 { 1 } else { 2 };
    let bytes = bytes.get(..count * width).with_context(|| format!("it ends before its {count} samples do"))?;
    Ok(match width {
        1 => bytes.iter().copied().map(u16::from).collect(),
        _ => bytes.as_chunks::<2>().0.iter().copied().map(u16::from_be_bytes).collect(),
    })
}

/// The words of a file, each with one white space after it. Comments reach from `#` to the end of the line.
struct Words<'f> {
    rest: &'f [u8],
}

impl Words<'_> {
    /// The next number; `None` at the end.
    fn number(&mut self) -> Option<Result<u32>> {
        let mut word = String::new();
        while let Some((first, rest)) = self.rest.split_first() {
            self.rest = rest;
            match first {
                b'#' => {
                    let end =
                        rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')).map_or(rest.len(), |end| end + 1);
                    self.rest = &rest[end..];
                }
                byte if !byte.is_ascii_whitespace() && *byte != 0x0b => word.push((*byte).into()),
                _ if word.is_empty() => {}
                _ => break,
            }
            if word.len() > 10 {
                break;
            }
        }
        let number = || word.parse().with_context(|| format!("'{word}' is not a number"));
        (!word.is_empty()).then(number)
    }

    fn samples(&mut self, count: usize, most: u32) -> Result<Vec<u16>> {
        let mut samples = vec![];
        while samples.len() < count {
            let sample = self.number().with_context(|| format!("it ends before its {count} samples do"))??;
            ensure!(sample <= most, "a sample is {sample}, more than the largest, {most}");
            samples.push(sample as u16);
        }
        Ok(samples)
    }
}
