//! JPEG decoding, meant to be bit-identical to Pillow's: libjpeg-turbo's slow integer DCT and smooth ("fancy") chroma
//! upsampling. The decoder is mozjpeg's, whose decoding half is libjpeg-turbo's; building it from source needs only a C
//! compiler, and nasm for SIMD. Without nasm, `idct.c` gives damaged blocks the pixels that they have with it.

use anyhow::{Result, ensure};
use caco_views::Raster;
use mozjpeg_sys as _; // linked for the C functions that jpeg.c calls
use std::{
    ffi::{CStr, c_char, c_int, c_uint, c_void},
    ptr::NonNull,
};

/// Images of more pixels are rejected, as in Pillow: a small file can claim any size.
pub const PIXELS_MAX: usize = 178_956_970;

unsafe extern "C" {
    fn caco_jpeg_new(own_idct: c_int) -> *mut c_void;
    fn caco_jpeg_free(decoder: *mut c_void);
    fn caco_jpeg_message(decoder: *const c_void) -> *const c_char;
    fn caco_jpeg_open(
        decoder: *mut c_void,
        data: *const u8,
        length: usize,
        scale: c_uint,
        width: *mut c_uint,
        height: *mut c_uint,
        cmyk: *mut c_int,
    ) -> c_int;
    fn caco_jpeg_read(decoder: *mut c_void, out: *mut u8) -> c_int;
}

/// A JPEG decoder, reusable for any number of images. No image affects the next one.
pub struct Decoder(NonNull<c_void>);

// SAFETY: the C object holds no thread-local state and no reference to anything outside it between calls.
unsafe impl Send for Decoder {}

impl Default for Decoder {
    fn default() -> Self {
        Decoder::new(false)
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        // SAFETY: created by caco_jpeg_new, freed once.
        unsafe { caco_jpeg_free(self.0.as_ptr()) }
    }
}

impl Decoder {
    /// `own_idct`: with the inverse DCT of idct.c even if the library was built with an assembler. The pixels are the same.
    fn new(own_idct: bool) -> Self {
        // SAFETY: a plain number; null is checked.
        let new = unsafe { caco_jpeg_new(own_idct.into()) };
        Decoder(NonNull::new(new).expect("memory for a JPEG decoder"))
    }

    /// Decodes `data` at 1/`scale` (1, 2, 4 or 8) of its size; above 1, a shorter DCT is used, which is faster than
    /// decoding and shrinking but gives different pixels. The size is rounded up to whole pixels. Grey and CMYK are
    /// converted to RGB like Pillow's `convert("RGB")`; EXIF orientation is ignored.
    ///
    /// Errors: not a JPEG, truncated, too large, or of a JPEG process that libjpeg does not support.
    pub fn decode(&mut self, data: &[u8], scale: u32, raster: &mut Raster) -> Result<()> {
        let (mut width, mut height, mut cmyk) = (0, 0, 0);
        // SAFETY: the pointers are to live memory of the given length; C keeps `data` only until the next call.
        let code = unsafe {
            caco_jpeg_open(self.0.as_ptr(), data.as_ptr(), data.len(), scale, &mut width, &mut height, &mut cmyk)
        };
        ensure!(code == 0, "{}", self.message());
        let (width, height) = (width as usize, height as usize);
        // A progressive file's coefficients need memory for the whole image at any scale.
        let whole = width * height * (scale * scale) as usize;
        ensure!(whole <= PIXELS_MAX, "{whole} pixels are more than {PIXELS_MAX}");
        raster.resize(width, height);
        // SAFETY: room for width * height pixels of four bytes; `data` is still the slice that was opened.
        let code = unsafe { caco_jpeg_read(self.0.as_ptr(), raster.pixels.as_mut_ptr().cast()) };
        ensure!(code == 0, "{}", self.message());
        if cmyk != 0 {
            raster.pixels.iter_mut().for_each(|p| *p = rgb_of_inverted_cmyk(*p));
        }
        Ok(())
    }

    fn message(&self) -> String {
        // SAFETY: a zero-terminated string inside the decoder.
        let text = unsafe { CStr::from_ptr(caco_jpeg_message(self.0.as_ptr())) };
        let text = text.to_string_lossy().into_owned();
        // Lossless and hierarchical JPEG, and 12 bits per sample.
        let other = ["SOF type", "data precision"].iter().any(|kind| text.contains(kind));
        if other { text + "; such a JPEG is not read here; convert it to PNG" } else { text }
    }
}

/// Pillow assumes that every CMYK JPEG is inverted, as Adobe writes them, and converts by `255 - k` times the
/// complement.
fn rgb_of_inverted_cmyk(stored: [u8; 4]) -> [u8; 4] {
    let [c, m, y, k] = stored.map(|v| 255 - v);
    let light = u32::from(255 - k);
    let channel = |ink: u8| {
        let product = u32::from(ink) * light + 128;
        (light - (((product >> 8) + product) >> 8)) as u8
    };
    [channel(c), channel(m), channel(y), 255]
}

#[cfg(test)]
mod tests {
    use super::*;
    use jpeg_encoder::{ColorType, Encoder};

    const DQT: u8 = 0xdb;
    const DHT: u8 = 0xc4;

    /// A JPEG of 40 x 24 pixels, with the standard's Huffman tables or with tables of its own.
    fn jpeg(seed: u32, quality: u8, own_tables: bool) -> Vec<u8> {
        let pixels: Vec<u8> = (0..40 * 24 * 3).map(|i: u32| (i.wrapping_mul(seed) >> 7) as u8).collect();
        let mut file = vec![];
        let mut encoder = Encoder::new(&mut file, quality);
        encoder.set_optimized_huffman_tables(own_tables);
        encoder.encode(&pixels, 40, 24, ColorType::Rgb).unwrap();
        file
    }

    /// The same file without the segments of one kind.
    fn without(file: &[u8], marker: u8) -> Vec<u8> {
        let (mut kept, mut at) = (file[..2].to_vec(), 2);
        while file[at + 1] != 0xda {
            let end = at + 2 + usize::from(u16::from_be_bytes([file[at + 2], file[at + 3]]));
            if file[at + 1] != marker {
                kept.extend(&file[at..end]);
            }
            at = end;
        }
        kept.extend(&file[at..]);
        assert!(kept.len() < file.len(), "there was no such segment");
        kept
    }

    fn decoded(decoder: &mut Decoder, file: &[u8]) -> Result<Raster> {
        scaled(decoder, file, 1)
    }

    fn scaled(decoder: &mut Decoder, file: &[u8], scale: u32) -> Result<Raster> {
        let mut raster = Raster::default();
        decoder.decode(file, scale, &mut raster).map(|()| raster)
    }

    /// The same file with a quantization step for all coefficients.
    fn with_steps(file: &[u8], step: u8) -> Vec<u8> {
        let mut file = file.to_vec();
        let tables: Vec<usize> = (0..file.len() - 1).filter(|at| file[*at..].starts_with(&[0xff, DQT])).collect();
        tables.iter().for_each(|at| file[at + 5..at + 69].fill(step));
        file
    }

    #[test]
    fn pixels_do_not_depend_on_an_assembler() {
        let (mut library, mut own) = (Decoder::default(), Decoder::new(true));
        for (seed, step) in (0..16).flat_map(|seed| [1, 16, 90, 255].map(|step| (2 * seed + 7_919, step))) {
            let file = with_steps(&jpeg(seed, 100, true), step);
            for scale in [1, 2, 4, 8] {
                let of = |decoder| scaled(decoder, &file, scale).unwrap();
                assert_eq!(of(&mut own), of(&mut library), "seed {seed}, steps of {step}, scale {scale}");
            }
        }
    }

    #[test]
    fn missing_huffman_tables_are_the_standards_whatever_came_before() {
        let whole = jpeg(7_919, 90, false);
        let bare = without(&whole, DHT);
        let expected = decoded(&mut Decoder::default(), &whole).unwrap();
        assert_eq!(decoded(&mut Decoder::default(), &bare).unwrap(), expected);
        let mut decoder = Decoder::default();
        for before in [jpeg(104_729, 60, true), jpeg(1, 95, true), whole.clone()] {
            decoded(&mut decoder, &before).unwrap();
            assert_eq!(decoded(&mut decoder, &bare).unwrap(), expected);
        }
        // Nor does an image that could not be decoded to its end leave anything behind.
        let truncated = jpeg(104_729, 60, true);
        assert!(decoded(&mut decoder, &truncated[..truncated.len() / 2]).is_err());
        assert_eq!(decoded(&mut decoder, &bare).unwrap(), expected);
    }

    #[test]
    fn a_lossless_jpeg_is_refused_with_a_way_out() {
        let mut file = jpeg(7_919, 90, false);
        let frame = file.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
        file[frame + 1] = 0xc3;
        let error = decoded(&mut Decoder::default(), &file).unwrap_err().to_string();
        assert!(error.contains("SOF type 0xc3") && error.contains("convert it to PNG"), "{error}");
        let mut file = jpeg(7_919, 90, false);
        file[frame + 4] = 12;
        let error = decoded(&mut Decoder::default(), &file).unwrap_err().to_string();
        assert!(error.contains("precision 12") && error.contains("convert it to PNG"), "{error}");
    }

    #[test]
    fn missing_quantization_tables_are_an_error_whatever_came_before() {
        let whole = jpeg(7_919, 90, false);
        let bare = without(&whole, DQT);
        let mut decoder = Decoder::default();
        let first = decoded(&mut decoder, &bare).unwrap_err().to_string();
        assert!(first.contains("Quantization table"), "{first}");
        decoded(&mut decoder, &whole).unwrap();
        assert_eq!(decoded(&mut decoder, &bare).unwrap_err().to_string(), first);
    }
}
