//! What is drawn for one view of one image.

use super::{
    operation::{Cut, Step},
    raster::Raster,
    view::View,
};
use caco_measure::rng::Rng;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// The purpose for which views are drawn unless a stage has its own.
pub const VIEW: &str = "view";

/// The parameters drawn for one view, in the order of application. Operations that leave it as it is are not listed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Drawn {
    /// The part of the image that it shows.
    pub cut: Cut,
    /// What is done to that.
    pub steps: Vec<Step>,
}

impl Drawn {
    /// What a stage with this seed draws in this epoch for each view of a sample of `width` × `height` pixels. Every
    /// operation of every view draws from a stream of its own, named by `purpose`, the view and the operation.
    pub fn of_sample(
        views: &[View],
        purpose: &str,
        seed: u64,
        epoch: u64,
        sample: u32,
        (width, height): (usize, usize),
    ) -> Vec<Drawn> {
        let draw = |(number, view): (usize, &View)| {
            let stream =
                |operation: &str| Rng::new(seed, &format!("{purpose} {number} {operation}"), epoch, sample.into());
            Drawn::new(view, (width, height), &stream)
        };
        views.iter().enumerate().map(draw).collect()
    }

    /// Draws a view of an image of this width and height. `stream` returns the random numbers of an operation.
    fn new(view: &View, image: (usize, usize), stream: &dyn Fn(&str) -> Rng) -> Drawn {
        let cut = view.crop.draw(image, &mut stream("crop"));
        let draw = |place: usize| view.operations[place].draw(cut.size, &mut stream(&view.stream(place)));
        Drawn { cut, steps: (0..view.operations.len()).filter_map(draw).collect() }
    }

    /// The same view of `image`, which is the original at 1/`scale`. Edges of the cut that fall between pixels move to
    /// the nearest pixel.
    pub fn scaled(&self, scale: u32, image: &Raster) -> Cow<'_, Drawn> {
        if scale == 1 {
            return Cow::Borrowed(self);
        }
        Cow::Owned(Drawn { cut: self.cut.scaled(scale, (image.width, image.height)), ..self.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::{Crop, Flip, Grey, Operation};

    fn flips(view: &View, sample: u32) -> usize {
        Drawn::of_sample(std::slice::from_ref(view), VIEW, 0, 0, sample, (30, 30))[0].steps.len()
    }

    #[test]
    fn operations_of_one_kind_draw_independently() {
        let crop = Crop { size: 8, scale: (0.2, 1.0) };
        let view = View { crop, operations: vec![Operation::Flip(Flip { p: 0.5 }), Operation::Flip(Flip { p: 0.5 })] };
        let counts: Vec<usize> = (0..200).map(|sample| flips(&view, sample)).collect();
        for count in 0..3 {
            assert!(counts.contains(&count), "{counts:?}");
        }
    }

    #[test]
    fn an_operation_draws_the_same_whatever_stands_beside_it() {
        let crop = Crop { size: 8, scale: (0.2, 1.0) };
        let alone = View { crop: crop.clone(), operations: vec![Operation::Flip(Flip { p: 0.5 })] };
        let beside =
            View { crop, operations: vec![Operation::Grey(Grey { p: 0.0 }), Operation::Flip(Flip { p: 0.5 })] };
        for sample in 0..50 {
            let draw = |view: &View| Drawn::of_sample(std::slice::from_ref(view), VIEW, 1, 2, sample, (50, 40));
            assert_eq!(draw(&alone), draw(&beside));
        }
    }
}
