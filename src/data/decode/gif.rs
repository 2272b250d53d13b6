//! GIF: the canvas around a first frame that does not fill it. The `image` crate leaves it black and cuts off what is
//! beyond; Pillow fills it with a colour of the palette and enlarges it. A file without a palette is grey to Pillow.

use caco_views::Raster;
use std::{borrow::Cow, iter};

/// The place of the flags that describe the shared colour table, and of the table.
const FLAGS: usize = 10;
const TABLE: usize = 13;
/// The flags of a shared table of 256 colours.
const TABLE_OF_256: u8 = 0x87;

/// The first frame.
pub struct Frame {
    /// Width and height of the canvas, enlarged to hold the frame.
    canvas: [u16; 2],
    /// Where the frame begins and ends.
    start: [u16; 2],
    end: [u16; 2],
    /// The colour of the canvas.
    colour: [u8; 3],
    /// Whether there is no colour table.
    bare: bool,
}

impl Frame {
    /// Reads as far as the first frame's place; `None` in a file without one, and if it does not fit on any canvas.
    pub fn first(file: &[u8]) -> Option<Self> {
        let short = |at: usize| Some(u16::from_le_bytes(*file.get(at..)?.first_chunk()?));
        let all = table(file, TABLE, *file.get(FLAGS)?)?;
        let (mut at, mut transparent) = (TABLE + all.len(), None);
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
        let bare = all.is_empty() && own.is_empty();
        let index = transparent.unwrap_or(0);
        let colour = if own.is_empty() { all } else { own }.as_chunks().0.get(usize::from(index)).copied();
        Some(Frame {
            canvas: [short(6)?.max(end[0]), short(8)?.max(end[1])],
            start: [left, top],
            end,
            colour: colour.unwrap_or(if bare { [index; 3] } else { [0; 3] }),
            bare,
        })
    }

    /// The file with a canvas that holds the frame, and with a colour table.
    pub fn completed<'f>(&self, file: &'f [u8]) -> Cow<'f, [u8]> {
        let size = self.canvas.map(u16::to_le_bytes).concat();
        if file[6..FLAGS] == size && !self.bare {
            return file.into();
        }
        let mut file = file.to_vec();
        file[6..FLAGS].copy_from_slice(&size);
        if self.bare {
            file[FLAGS] |= TABLE_OF_256;
            file.splice(TABLE..TABLE, (0..=255).flat_map(|grey| iter::repeat_n(grey, 3)));
        }
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
