//! The views that a stage makes of each image.

use super::{
    operation::{Blur, Crop, Flip, Grey, Jitter, Operation, Solarize},
    view::View,
};
use caco_pipeline::kind::{Complaint, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The random views of an image, large ones first. Presets use the values of the paper.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub enum Views {
    /// Two large views: crop scale 0.2–1; blur p 1.0 and 0.1; solarize p 0.2 on the second.
    SingleCrop {
        /// Side of both views, in pixels.
        size: u32,
    },
    /// Two large views, crop scale 0.14–1, and `count` small ones, 0.05–0.14; blur p 0.5, no solarize.
    MultiCrop {
        /// Side of the two large views, in pixels.
        size: u32,
        /// Side of the small views, in pixels.
        small: u32,
        /// Number of small views; 6 in the paper.
        #[serde(default = "six")]
        count: u32,
    },
    /// An explicit list of views, each a list of operations. The first two are the large ones.
    Custom(Vec<View>),
}

fn six() -> u32 {
    6
}

impl Views {
    /// The explicit list of views. The first two are the large ones.
    pub fn list(&self) -> Vec<View> {
        match self {
            Views::SingleCrop { size } => vec![
                paper(*size, (0.2, 1.0), 0.2, vec![Operation::Blur(blur(1.0))]),
                paper(*size, (0.2, 1.0), 0.2, vec![Operation::Blur(blur(0.1)), Operation::Solarize(solarize(0.2))]),
            ],
            Views::MultiCrop { size, small, count } => {
                let view = |size, scale| paper(size, scale, 0.4, vec![Operation::Blur(blur(0.5))]);
                let mut views = vec![view(*size, (0.14, 1.0)); 2];
                views.extend(vec![view(*small, (0.05, 0.14)); *count as usize]);
                views
            }
            Views::Custom(views) => views.clone(),
        }
    }

    /// Rejects fewer than two views, two large ones of different sizes, and values out of range.
    pub fn check(&self) -> Result<(), Complaint> {
        let views = self.list();
        ensure(views.len() >= 2, "views", format!("has {} view(s); the method compares at least two", views.len()))?;
        ensure(
            views[0].size() == views[1].size(),
            "views",
            "the first two views, the large ones, must have the same size",
        )?;
        let numbered = |(number, view): (usize, &View)| {
            view.check().map_err(|c| Complaint { field: format!("views (view {number}): {}", c.field), ..c })
        };
        views.iter().enumerate().try_for_each(numbered)
    }
}

/// A view of the paper.
fn paper(size: u32, scale: (f64, f64), saturation: f64, between: Vec<Operation>) -> View {
    let jitter = Jitter { brightness: 0.4, contrast: 0.4, saturation, hue: 0.1, p: 0.8 };
    let mut operations = vec![Operation::Jitter(jitter), Operation::Grey(Grey { p: 0.2 })];
    operations.extend(between);
    operations.push(Operation::Flip(Flip { p: 0.5 }));
    View { crop: Crop { size, scale }, operations }
}

fn blur(p: f64) -> Blur {
    Blur { sigma: (0.1, 2.0), p }
}

fn solarize(p: f64) -> Solarize {
    Solarize { threshold: 128, p }
}
