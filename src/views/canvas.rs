//! The view that operations work on, one after the other.

use super::{
    filter::Filter,
    operation::Cut,
    raster::Raster,
    resample::{Region, Scratch, resample},
};

/// Pixels of a view in which neighbours are of no interest.
pub type Block = [[u8; 4]];

/// A view in the making. Neighbouring operations on single pixels share a pass over memory, a flip none: both wait until
/// somebody wants to see the pixels.
#[derive(Default)]
pub struct Canvas {
    view: Raster,
    spare: Raster,
    scratch: Scratch,
    #[expect(clippy::type_complexity, reason = "it is written once")]
    waiting: Vec<Box<dyn Fn(&mut Block) + Send>>,
    is_flipped: bool,
}

impl Canvas {
    /// Begins with a part of an image, in place of what was there.
    pub(super) fn begin(&mut self, cut: Cut, image: &Raster) {
        let size = (cut.size, cut.size);
        self.resize(image, cut.region, size, Region::whole(size), Filter::Bilinear);
    }

    /// Begins with a window of a resized part of an image.
    pub(super) fn resize(
        &mut self,
        image: &Raster,
        from: Region,
        size: (usize, usize),
        window: Region,
        filter: Filter,
    ) {
        self.waiting.clear();
        self.is_flipped = false;
        resample(image, from, size, window, filter, &mut self.scratch, &mut self.view);
    }

    /// Changes each pixel independently of the others. `change` sees blocks of them.
    pub fn pixelwise(&mut self, change: impl Fn(&mut Block) + Send + 'static) {
        self.waiting.push(Box::new(change));
    }

    /// Swaps left and right.
    pub fn flip(&mut self) {
        self.is_flipped = !self.is_flipped;
    }

    /// All pixels, for what does not depend on where they are.
    pub fn pixels(&mut self) -> &mut Block {
        if !self.waiting.is_empty() {
            // Block by block, so that the pixels stay in the processor's cache.
            for block in self.view.pixels.chunks_mut(1024) {
                self.waiting.iter().for_each(|change| change(block));
            }
            self.waiting.clear();
        }
        &mut self.view.pixels
    }

    /// The view, and another image whose content does not matter: an operation may swap them.
    pub fn raster(&mut self) -> (&mut Raster, &mut Raster) {
        self.pixels();
        if std::mem::take(&mut self.is_flipped) {
            self.view.pixels.chunks_exact_mut(self.view.width.max(1)).for_each(|row| row.reverse());
        }
        (&mut self.view, &mut self.spare)
    }

    /// Writes the view as `width * height * 3` bytes of RGB.
    pub(super) fn finish(&mut self, out: &mut [u8]) {
        self.pixels();
        self.view.write_rgb(self.is_flipped, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_done_in_order() {
        let image = Raster::from_rgb(2, 1, &[1, 2, 3, 4, 5, 6]);
        let mut canvas = Canvas::default();
        let cut = Cut { size: 2, region: Region { left: 0, top: 0, width: 2, height: 1 } };
        canvas.begin(cut, &image);
        canvas.pixelwise(|block| block.iter_mut().for_each(|p| p[0] += 1));
        canvas.flip();
        canvas.pixelwise(|block| block.iter_mut().for_each(|p| p[0] *= 2));
        assert_eq!(canvas.raster().0.row(0), [[10, 5, 6, 255], [4, 2, 3, 255]]);
        canvas.flip();
        let mut out = [0; 12];
        canvas.finish(&mut out);
        assert_eq!(out[..6], [4, 2, 3, 10, 5, 6]);
    }

    #[test]
    fn nothing_of_one_view_is_left_in_the_next() {
        let image = Raster::from_rgb(2, 1, &[1, 2, 3, 4, 5, 6]);
        let mut canvas = Canvas::default();
        let cut = Cut { size: 2, region: Region { left: 0, top: 0, width: 2, height: 1 } };
        canvas.begin(cut, &image);
        canvas.pixelwise(|block| block.fill([0; 4]));
        canvas.flip();
        canvas.begin(cut, &image);
        assert_eq!(canvas.raster().0.row(1), [[1, 2, 3, 255], [4, 5, 6, 255]]);
    }
}
