//! Decodes any image file to RGB, as Pillow's `Image.open(file).convert("RGB")` does: of an animation, the first frame.

mod bmp;
mod gif;
mod png;
mod pnm;
mod webp;

use super::jpeg::{self, PIXELS_MAX};
use anyhow::{Context as _, Result, bail, ensure};
use caco_views::Raster;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};
use std::{borrow::Cow, io::Cursor};

/// File extensions that count as images, in lower case: those of torchvision's `ImageFolder`.
pub const EXTENSIONS: [&str; 9] = ["jpg", "jpeg", "png", "ppm", "bmp", "pgm", "tif", "tiff", "webp"];

/// Decodes images, reusing its buffers between them.
#[derive(Default)]
pub struct Decoder {
    jpeg: jpeg::Decoder,
}

impl Decoder {
    /// Decodes the bytes of a file into `raster`. The content decides the format, not the name: ImageNet has a PNG file
    /// called `.JPEG`.
    pub fn decode(&mut self, file: &[u8], raster: &mut Raster) -> Result<()> {
        if file.starts_with(&[0xff, 0xd8]) {
            return self.jpeg.decode(file, 1, raster).context("cannot decode as JPEG");
        }
        match image::guess_format(file) {
            Ok(
                format
                @ (ImageFormat::Png | ImageFormat::Bmp | ImageFormat::Gif | ImageFormat::WebP | ImageFormat::Pnm),
            ) => {
                *raster = other(file, format).with_context(|| format!("cannot decode as {format:?}"))?;
                Ok(())
            }
            Ok(format) => bail!("{format:?} is not read here; convert it to PNG"),
            Err(_) if file.is_empty() => bail!("the file is empty"),
            Err(_) => {
                bail!("neither JPEG, PNG, BMP, GIF, WebP nor PNM; an image of another format must be converted to PNG")
            }
        }
    }

    /// Like [`Decoder::decode`], but decodes a JPEG at 1/`scale` (1, 2, 4 or 8) of its size by a shorter DCT. Other
    /// formats are decoded in full. Returns the scale used.
    pub fn decode_scaled(&mut self, file: &[u8], scale: u32, raster: &mut Raster) -> Result<u32> {
        if scale > 1 && file.starts_with(&[0xff, 0xd8]) {
            self.jpeg.decode(file, scale, raster).context("cannot decode as JPEG")?;
            return Ok(scale);
        }
        self.decode(file, raster)?;
        Ok(1)
    }
}

/// Decodes a file of another format than JPEG, rare variants by way of a file that the library reads as Pillow does.
fn other(file: &[u8], format: ImageFormat) -> Result<Raster> {
    match format {
        ImageFormat::Bmp => {
            let mut raster = library(&bmp::plain(file)?, format)?;
            bmp::widen(file, &mut raster);
            Ok(raster)
        }
        ImageFormat::Gif => {
            let frame = gif::Frame::first(file);
            let file = frame.as_ref().map_or(Cow::from(file), |frame| frame.completed(file));
            let mut raster = library(&file, format)?;
            frame.iter().for_each(|frame| frame.surround(&mut raster));
            Ok(raster)
        }
        ImageFormat::Pnm => pnm::decode(file)?.map_or_else(|| library(file, format), Ok),
        ImageFormat::Png => {
            let again = |error| png::repaired(file).and_then(|file| decoded(&file, format).ok()).ok_or(error);
            let image = decoded(file, format).or_else(again)?;
            // The library adds alpha if the file names a transparent colour; Pillow does not.
            Ok(rgb(if png::is_grey_16(file) { image.into_luma16().into() } else { image }))
        }
        ImageFormat::WebP => library(&webp::unblended(file), format),
        _ => library(file, format),
    }
}

fn library(file: &[u8], format: ImageFormat) -> Result<Raster> {
    decoded(file, format).map(rgb)
}

fn decoded(file: &[u8], format: ImageFormat) -> Result<DynamicImage> {
    let mut reader = ImageReader::with_format(Cursor::new(file), format);
    let mut limits = Limits::default();
    limits.max_alloc = Some(8 * PIXELS_MAX as u64);
    reader.limits(limits);
    let decoder = reader.into_decoder()?;
    let (width, height) = decoder.dimensions();
    let pixels = width as usize * height as usize;
    ensure!(pixels <= PIXELS_MAX, "{width} x {height} pixels are more than {PIXELS_MAX}");
    Ok(DynamicImage::from_decoder(decoder)?)
}

/// Alpha is dropped, not blended. Of 16 bits the upper eight are kept, but 16-bit grey without alpha is clamped to 255:
/// Pillow reads such a file in a mode of its own (`I;16`, or `I` for PGM), whose conversion does that.
fn rgb(decoded: DynamicImage) -> Raster {
    let (width, height) = (decoded.width() as usize, decoded.height() as usize);
    let high = |v: u16| (v >> 8) as u8;
    let cut = |v: u16| v.min(255) as u8;
    let grey = |v: u8| [v, v, v, 255];
    let pixels = match &decoded {
        DynamicImage::ImageLuma8(i) => i.pixels().map(|p| grey(p.0[0])).collect(),
        DynamicImage::ImageLumaA8(i) => i.pixels().map(|p| grey(p.0[0])).collect(),
        DynamicImage::ImageLuma16(i) => i.pixels().map(|p| grey(cut(p.0[0]))).collect(),
        DynamicImage::ImageLumaA16(i) => i.pixels().map(|p| grey(high(p.0[0]))).collect(),
        DynamicImage::ImageRgb16(i) => i.pixels().map(|p| [high(p.0[0]), high(p.0[1]), high(p.0[2]), 255]).collect(),
        DynamicImage::ImageRgba16(i) => i.pixels().map(|p| [high(p.0[0]), high(p.0[1]), high(p.0[2]), 255]).collect(),
        DynamicImage::ImageRgba8(i) => i.pixels().map(|p| [p.0[0], p.0[1], p.0[2], 255]).collect(),
        other => other.to_rgb8().pixels().map(|p| [p.0[0], p.0[1], p.0[2], 255]).collect(),
    };
    Raster { width, height, pixels }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn bytes(hexadecimal: &Value) -> Vec<u8> {
        let digits = hexadecimal.as_str().unwrap().as_bytes();
        digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    #[test]
    fn rare_variants_match_pil() {
        // Written by tests/reference/variants.py.
        let cases: Vec<Value> = serde_json::from_str(include_str!("../../tests/reference/variants.json")).unwrap();
        assert!(cases.len() > 100, "only {} cases", cases.len());
        let mut wrong = vec![];
        for case in &cases {
            let mut raster = Raster::default();
            let decoded = Decoder::default().decode(&bytes(&case["file"]), &mut raster);
            let expected = case.get("rgb").map(bytes);
            let found = decoded.as_ref().ok().map(|()| raster.to_rgb());
            if found != expected {
                wrong.push(format!("{}: {decoded:?}", case["name"]));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn damaged_files_are_errors_and_never_panic() {
        let cases: Vec<Value> = serde_json::from_str(include_str!("../../tests/reference/variants.json")).unwrap();
        let (mut decoder, mut raster) = (Decoder::default(), Raster::default());
        for case in &cases {
            let file = bytes(&case["file"]);
            for length in 0..file.len() {
                _ = decoder.decode(&file[..length], &mut raster);
            }
            for at in 0..file.len().min(80) {
                let mut damaged = file.clone();
                damaged[at] ^= 0x55;
                // A header that claims a huge image is slow to refuse, not wrong.
                if !(4..30).contains(&at) {
                    _ = decoder.decode(&damaged, &mut raster);
                }
            }
        }
    }
}
