//! Decodes any image file to RGB, as Pillow's `Image.open(file).convert("RGB")` does: of an animation, the first frame.

use super::{
    jpeg::{self, PIXELS_MAX},
    raster::Raster,
};
use anyhow::{Context as _, Result, bail, ensure};
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};
use std::io::Cursor;

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
                *raster = decode_other(file, format).with_context(|| format!("cannot decode as {format:?}"))?;
                Ok(())
            }
            Ok(format) => bail!("{format:?} is not read here; convert it to PNG"),
            Err(_) if file.is_empty() => bail!("the file is empty"),
            Err(_) => bail!("neither JPEG, PNG, BMP, GIF, WebP nor PNM"),
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

fn decode_other(file: &[u8], format: ImageFormat) -> Result<Raster> {
    let mut reader = ImageReader::with_format(Cursor::new(file), format);
    let mut limits = Limits::default();
    limits.max_alloc = Some(8 * PIXELS_MAX as u64);
    reader.limits(limits);
    let decoder = reader.into_decoder()?;
    let (width, height) = decoder.dimensions();
    let pixels = width as usize * height as usize;
    ensure!(pixels <= PIXELS_MAX, "{width} x {height} pixels are more than {PIXELS_MAX}");
    let decoded = DynamicImage::from_decoder(decoder)?;
    Ok(rgb(decoded))
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
