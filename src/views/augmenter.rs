//! Makes what is drawn.

use super::{
    canvas::Canvas,
    drawn::Drawn,
    filter::Filter,
    raster::Raster,
    resample::{Region, short_side},
};

/// Makes views, reusing its buffers between them.
#[derive(Default)]
pub struct Augmenter {
    canvas: Canvas,
}

impl Augmenter {
    /// Writes the drawn view of `image` as `size * size * 3` bytes of RGB.
    pub fn apply(&mut self, drawn: &Drawn, image: &Raster, out: &mut [u8]) {
        self.canvas.begin(drawn.cut, image);
        drawn.steps.iter().for_each(|step| step.apply(&mut self.canvas));
        self.canvas.finish(out);
    }

    /// The same, one operation after the other, none of which shares a pass over memory with another. `done` is called
    /// with the name of each.
    pub fn apply_apart(&mut self, drawn: &Drawn, image: &Raster, out: &mut [u8], mut done: impl FnMut(&'static str)) {
        self.canvas.begin(drawn.cut, image);
        done("crop");
        for step in &drawn.steps {
            step.apply(&mut self.canvas);
            self.canvas.pixels();
            done(step.name());
        }
        self.canvas.finish(out);
        done("store");
    }

    /// Resizes the short side of `image` to `resize` pixels and writes the central `crop` × `crop` as `crop * crop * 3`
    /// bytes of RGB: torchvision's `Resize` and `CenterCrop`. `resize` must not be below `crop`.
    pub fn centre(&mut self, image: &Raster, resize: usize, crop: usize, filter: Filter, out: &mut [u8]) {
        let whole = (image.width, image.height);
        let size = short_side(whole, resize);
        let start = |side: usize| ((side - crop) as f64 / 2.0).round_ties_even() as usize;
        let window = Region { left: start(size.0), top: start(size.1), width: crop, height: crop };
        self.canvas.resize(image, Region::whole(whole), size, window, filter);
        self.canvas.finish(out);
    }
}
