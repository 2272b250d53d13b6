//! One image in memory.

/// Height × width pixels, row by row, each R, G, B and an unused fourth byte: a pixel is one 32-bit word, so that loops
/// over pixels are vectorised.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Raster {
    /// Width, in pixels.
    pub width: usize,
    /// Height, in pixels.
    pub height: usize,
    /// The pixels, `width * height` of them.
    pub pixels: Vec<[u8; 4]>,
}

impl Raster {
    /// A black image.
    pub fn new(width: usize, height: usize) -> Self {
        let mut raster = Raster::default();
        raster.resize(width, height);
        raster
    }

    /// Changes the size and keeps the memory; the pixels are unspecified afterwards.
    pub fn resize(&mut self, width: usize, height: usize) {
        (self.width, self.height) = (width, height);
        self.pixels.resize(width * height, [0, 0, 0, 255]);
    }

    /// From `width * height * 3` bytes of RGB.
    pub fn from_rgb(width: usize, height: usize, rgb: &[u8]) -> Self {
        assert_eq!(rgb.len(), width * height * 3, "{width} x {height} pixels of three bytes");
        let pixels = rgb.as_chunks::<3>().0.iter().map(|&[r, g, b]| [r, g, b, 255]).collect();
        Raster { width, height, pixels }
    }

    /// Row `y`.
    pub fn row(&self, y: usize) -> &[[u8; 4]] {
        &self.pixels[y * self.width..(y + 1) * self.width]
    }

    /// Writes `width * height * 3` bytes of RGB, each row from right to left if `mirror` is set.
    pub fn write_rgb(&self, mirror: bool, out: &mut [u8]) {
        assert_eq!(out.len(), self.width * self.height * 3, "{} x {} pixels of three bytes", self.width, self.height);
        let copy = |from: &[u8; 4], to: &mut [u8; 3]| to.copy_from_slice(&from[..3]);
        if self.width == 0 {
            return;
        }
        for (row, line) in self.pixels.chunks_exact(self.width).zip(out.chunks_exact_mut(self.width * 3)) {
            let line = line.as_chunks_mut::<3>().0;
            if mirror {
                row.iter().zip(line.iter_mut().rev()).for_each(|(from, to)| copy(from, to));
            } else {
                row.iter().zip(line).for_each(|(from, to)| copy(from, to));
            }
        }
    }

    /// As `width * height * 3` bytes of RGB.
    pub fn to_rgb(&self) -> Vec<u8> {
        let mut out = vec![0; self.width * self.height * 3];
        self.write_rgb(false, &mut out);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rgb_comes_back_and_mirrors() {
        let rgb: Vec<u8> = (0..18).collect();
        let raster = Raster::from_rgb(3, 2, &rgb);
        assert_eq!(raster.to_rgb(), rgb);
        let mut mirrored = vec![0; 18];
        raster.write_rgb(true, &mut mirrored);
        assert_eq!(mirrored, [6, 7, 8, 3, 4, 5, 0, 1, 2, 15, 16, 17, 12, 13, 14, 9, 10, 11]);
    }
}
