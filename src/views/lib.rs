//! Random views of an image. [`Views`] is what a pipeline file says: a list of views, each a [`View`], a list of
//! operations. [`Drawn`] is what is drawn for one view of one image, and an [`Augmenter`] makes the view. Pixels are
//! those of Pillow and torchvision.

mod affine;
mod augmenter;
mod blur;
mod canvas;
mod colour;
mod drawn;
mod filter;
mod former;
mod levels;
mod operation;
mod raster;
mod resample;
mod sharpen;
mod vectorise;
mod view;
mod views;

pub use augmenter::Augmenter;
pub use canvas::Canvas;
pub use drawn::{Drawn, VIEW};
pub use filter::Filter;
pub use operation::{Blur, Flip, Grey, Jitter, RandAugment, Solarize};
pub use operation::{Crop, Cut, Operation, Step};
pub use raster::Raster;
pub use resample::{Region, Scratch, resample, short_side};
pub use view::View;
pub use views::Views;
