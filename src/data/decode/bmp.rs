//! BMP: variants that the `image` crate does not read, or not as Pillow does, in a form in which it does.

use super::PIXELS_MAX;
use anyhow::{Result, ensure};
use caco_views::Raster;
use std::borrow::Cow;

/// Length of the header of the file; the header of the image follows.
const FILE: usize = 14;
/// The place in it of the start of the pixels.
const START: usize = 10;
/// One plane.
const ONE: [u8; 2] = [1, 0];
/// Lengths of headers of images: OS/2 1, Windows 3, OS/2 2.
const CORE: u32 = 12;
const INFO: u32 = 40;
const OS2: u32 = 64;
/// Compressions.
const RAW: u32 = 0;
const RLE8: u32 = 1;
const RLE4: u32 = 2;
const BITFIELDS: u32 = 3;
/// The masks of red, green and blue that Pillow knows in 16 bits, and where they are in a file.
const MASKS_565: [u32; 3] = [0xf800, 0x7e0, 0x1f];
const MASKS_555: [u32; 3] = [0x7c00, 0x3e0, 0x1f];
const MASKS: usize = 54;

/// What a file says of its image.
struct Header {
    /// Its own length.
    length: u32,
    width: u32,
    /// Negative if the rows are stored from top to bottom.
    height: i32,
    bits: u16,
    compression: u32,
    colours: u32,
    /// Where the pixels start.
    pixels: usize,
    /// Where the number of planes is.
    planes: usize,
}

impl Header {
    fn read(file: &[u8]) -> Option<Self> {
        let long = |at: usize| Some(u32::from_le_bytes(*file.get(at..)?.first_chunk()?));
        let short = |at: usize| Some(u16::from_le_bytes(*file.get(at..)?.first_chunk()?));
        let (length, pixels) = (long(FILE)?, long(START)? as usize);
        if length == CORE {
            let (width, height) = (short(18)?.into(), short(20)?.into());
            let bits = short(24)?;
            return Some(Header { length, width, height, bits, compression: RAW, colours: 0, pixels, planes: 22 });
        }
        let (width, height) = (long(18)?, long(22)? as i32);
        let (bits, compression, colours) = (short(28)?, long(30)?, long(46)?);
        Some(Header { length, width, height, bits, compression, colours, pixels, planes: 26 })
    }

    /// Where the pixels start according to Pillow: after the palette if the file says that they start where it does.
    fn start(&self) -> usize {
        let palette = FILE + self.length as usize;
        if self.bits > 8 || self.pixels != palette {
            return self.pixels;
        }
        let colours = if self.colours == 0 { 1 << self.bits } else { self.colours as usize };
        palette + colours * if self.length == CORE { 3 } else { 4 }
    }

    /// How many bytes are missing after the pixels of the last row, which Pillow does not need.
    fn missing(&self, length: usize) -> usize {
        let row = (u64::from(self.width) * u64::from(self.bits)).div_ceil(8);
        let stride = row.next_multiple_of(4);
        let end = stride.saturating_mul(self.height.unsigned_abs().into()).saturating_add(self.start() as u64);
        let missing = end.saturating_sub(length as u64);
        let packed = matches!(self.compression, RLE8 | RLE4);
        if packed || missing > stride - row { 0 } else { missing as usize }
    }

    /// The file with what Pillow takes for granted: one plane, a right start of the pixels, and a complete last row.
    fn corrected<'f>(&self, file: &'f [u8]) -> Cow<'f, [u8]> {
        let start = u32::try_from(self.start()).unwrap_or(u32::MAX).to_le_bytes();
        let planes = self.planes..self.planes + 2;
        let missing = self.missing(file.len());
        if file[START..FILE] == start && file[planes.clone()] == ONE && missing == 0 {
            return file.into();
        }
        let mut corrected = file.to_vec();
        corrected[START..FILE].copy_from_slice(&start);
        corrected[planes].copy_from_slice(&ONE);
        corrected.resize(file.len() + missing, 0);
        corrected.into()
    }

    /// Blue, green, red and a zero for each colour; nothing in an image without a palette.
    fn palette<'f>(&self, file: &'f [u8]) -> &'f [u8] {
        if self.bits > 8 {
            return &[];
        }
        let most = 1 << self.bits;
        let count = if self.colours == 0 { most } else { self.colours.min(most) };
        let start = FILE + self.length as usize;
        let end = (start + 4 * count as usize).min(self.pixels).min(file.len());
        file.get(start..end).unwrap_or_default()
    }

    /// A file with the header of Windows 3, uncompressed.
    fn file(&self, bits: u16, palette: &[u8], pixels: &[u8]) -> Vec<u8> {
        let start = FILE as u32 + INFO + palette.len() as u32;
        let mut file = b"BM".to_vec();
        file.extend([start + pixels.len() as u32, 0, start, INFO, self.width].map(u32::to_le_bytes).concat());
        file.extend(self.height.to_le_bytes());
        file.extend([1, bits].map(u16::to_le_bytes).concat());
        file.extend([RAW, 0, 0, 0, palette.len() as u32 / 4, 0].map(u32::to_le_bytes).concat());
        file.extend(palette);
        file.extend(pixels);
        file
    }

    /// One byte per pixel instead of run-length codes.
    fn unpacked(&self, file: &[u8]) -> Result<Vec<u8>> {
        let (width, height) = (self.width as usize, self.height.unsigned_abs() as usize);
        let total = width.checked_mul(height).filter(|total| *total <= PIXELS_MAX);
        ensure!(total.is_some(), "{width} x {height} pixels are more than {PIXELS_MAX}");
        let total = total.unwrap_or_default();
        let mut runs = Runs { file, at: self.pixels, width, total, x: 0, pixels: vec![] };
        while runs.pixels.len() < total && runs.step(self.compression == RLE4).is_some() {}
        let found = runs.pixels.len();
        ensure!(found >= total, "its run-length codes end after {found} of {total} pixels");
        let mut rows = Vec::with_capacity(width.next_multiple_of(4) * height);
        for row in runs.pixels[..total].chunks_exact(width.max(1)) {
            rows.extend(row);
            rows.resize(rows.len().next_multiple_of(4), 0);
        }
        Ok(self.file(8, self.palette(file), &rows))
    }
}

/// Reads run-length codes as Pillow does: pixels that are skipped have the first colour.
struct Runs<'f> {
    file: &'f [u8],
    at: usize,
    width: usize,
    total: usize,
    x: usize,
    pixels: Vec<u8>,
}

impl Runs<'_> {
    /// Reads one code; `None` at the end.
    fn step(&mut self, four: bool) -> Option<()> {
        match self.two()? {
            [0, 0] => {
                self.pixels.resize(self.pixels.len().next_multiple_of(self.width), 0);
                self.x = 0;
            }
            [0, 1] => return None,
            [0, 2] => {
                let [right, up] = self.two()?.map(usize::from);
                self.pixels.resize((self.pixels.len() + right + up * self.width).min(self.total), 0);
                self.x = self.pixels.len() % self.width;
            }
            [0, count] => self.listed(count.into(), four)?,
            [count, value] => {
                let run = usize::from(count).min(self.width.saturating_sub(self.x));
                let colours = if four { [value >> 4, value & 15] } else { [value; 2] };
                self.pixels.extend(colours.iter().cycle().take(run));
                self.x += run;
            }
        }
        Some(())
    }

    /// Pixels that are listed one by one, up to an even place in the file.
    fn listed(&mut self, count: usize, four: bool) -> Option<()> {
        let run = count.min(self.total - self.pixels.len());
        let length = if four { run.div_ceil(2) } else { run };
        let codes = self.file.get(self.at..self.at + length)?;
        match four {
            true => self.pixels.extend(codes.iter().flat_map(|code| [code >> 4, code & 15]).take(run)),
            false => self.pixels.extend(codes),
        }
        self.x += count;
        self.at = (self.at + length).next_multiple_of(2);
        Some(())
    }

    fn two(&mut self) -> Option<[u8; 2]> {
        let two = *self.file.get(self.at..)?.first_chunk()?;
        self.at += 2;
        Some(two)
    }
}

/// The same image in a form that the `image` crate reads. An error if its run-length codes end too early.
pub fn plain(file: &[u8]) -> Result<Cow<'_, [u8]>> {
    let Some(header) = Header::read(file) else { return Ok(file.into()) };
    let file = header.corrected(file);
    let header = Header { pixels: header.start(), ..header };
    let rows = || file.get(header.pixels..).unwrap_or_default();
    Ok(match (header.length, header.compression, header.bits) {
        (CORE, _, 16 | 32) => header.file(header.bits, &[], rows()).into(),
        (OS2, RAW, _) => header.file(header.bits, header.palette(&file), rows()).into(),
        (INFO.., RLE8, 8) | (INFO.., RLE4, 4) => header.unpacked(&file)?.into(),
        _ => file,
    })
}

/// Brings the channels of an image of 16 bits per pixel from five or six bits to eight as Pillow does, which rounds
/// down. `raster` is the decoded file.
pub fn widen(file: &[u8], raster: &mut Raster) {
    let Some(header) = Header::read(file).filter(|header| header.bits == 16) else { return };
    let masks =
        |known: [u32; 3]| file.get(MASKS..).is_some_and(|at| at.starts_with(&known.map(u32::to_le_bytes).concat()));
    let fields = header.compression == BITFIELDS;
    let of_five = |value: u8| (u16::from(value >> 3) * 255 / 31) as u8;
    let of_six = |value: u8| (u16::from(value >> 2) * 255 / 63) as u8;
    if fields && masks(MASKS_565) {
        raster.pixels.iter_mut().for_each(|[r, g, b, _]| (*r, *g, *b) = (of_five(*r), of_six(*g), of_five(*b)));
    } else if !fields || masks(MASKS_555) {
        raster.pixels.iter_mut().for_each(|[r, g, b, _]| (*r, *g, *b) = (of_five(*r), of_five(*g), of_five(*b)));
    }
}
