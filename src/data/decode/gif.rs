//! GIF: the canvas around a first frame that does not fill it. The `image` crate leaves it black and cuts off what is
//! beyond; Pillow fills it with a colour of the palette and enlarges it.

use crate::raster::Raster;
use std::borrow::Cow;

/// The first frame.
pub struct Frame {
    /// Width and height of the canvas, enlarged to hold the frame.
    canvas: [u16; 2],
    /// Where the frame begins and ends.
    start: [u16; 2],
    end: [u16; 2],
    /// The colour of the canvas.
    colour: [u8; 3],
}

impl Frame {
    /// Reads as far as the first frame's place; `None` in a file without one, and if it does not fit on any canvas.
    pub fn first(file: &[u8]) -> Option<Self> {
        let short = |at: usize| Some(u16::from_le_bytes(*file.get(at..)?.first_chunk()?));
        let all = table(file, 13, *file.get(10)?)?;
        let (mut at, mut transparent) = (13 + all.len(), None);
        while *file.get(at)? != b',' {
            match file[at] {
                b'!' => at = extension(file, at, &mut transparent)?,
                b';' => return None,
                _ => at += 1,
            }
        }
        let [left, top, width, height] = [short(at + 1)?, short(at + 3)?, short(at + 5)?, short(at + 7)?];
        let own = table(file, at + 10, *file.get(at + 9)?)?;
        let end = [left.checked_add(width)?, top.checked_add(height)?];
        let colour = if own.is_empty() { all } else { own }.chunks_exact(3).nth(transparent.unwrap_or(0).into());
        Some(Frame {
            canvas: [short(6)?.max(end[0]), short(8)?.max(end[1])],
            start: [left, top],
            end,
            colour: colour.map_or([0; 3], |colour| [colour[0], colour[1], colour[2]]),
        })
    }

    /// The file with a canvas that holds the frame.
    pub fn enlarged<'f>(&self, file: &'f [u8]) -> Cow<'f, [u8]> {
        let size = self.canvas.map(u16::to_le_bytes).concat();
        if file[6..10] == size {
            return file.into();
        }
        let mut file = file.to_vec();
        file[6..10].copy_from_slice(&size);
        file.into()
    }

    /// Fills the canvas around the frame.
    pub fn surround(&self, raster: &mut Raster) {
        let inside = |x: usize, y: usize| {
            let [left, top, right, bottom] = [self.start[0], self.start[1], self.end[0], self.end[1]].map(usize::from);
            (left..right).contains(&x) && (top..bottom).contains(&y)
        };
        if self.start == [0, 0] && self.end == self.canvas {
            return;
        }
        let [r, g, b] = self.colour;
        let width = raster.width.max(1);
        let outside = raster.pixels.iter_mut().enumerate().filter(|(i, _)| !inside(i % width, i / width));
        outside.for_each(|(_, pixel)| *pixel = [r, g, b, 255]);
    }
}

/// The colour table at `at`, if the flags say that there is one.
fn table(file: &[u8], at: usize, flags: u8) -> Option<&[u8]> {
    let length = if flags & 0x80 == 0 { 0 } else { 3 << ((flags & 7) + 1) };
    file.get(at..at + length)
}

/// Reads an extension, and which colour it makes transparent. Returns the place behind it.
fn extension(file: &[u8], at: usize, transparent: &mut Option<u8>) -> Option<usize> {
    const GRAPHIC_CONTROL: u8 = 0xf9;
    let control = *file.get(at + 1)? == GRAPHIC_CONTROL;
    let mut block = at + 2;
    while *file.get(block)? != 0 {
        let data = file.get(block + 1..block + 1 + usize::from(file[block]))?;
        if let ([flags, _, _, colour, ..], true) = (data, control && block == at + 2)
            && flags & 1 == 1
        {
            *transparent = Some(*colour);
        }
        block += 1 + data.len();
    }
    Some(block + 1)
}
