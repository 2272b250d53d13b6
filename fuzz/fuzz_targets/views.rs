#![no_main]
//! Lists of views, each applied to a small image. The first three bytes are its width, its height and the seed.

use caco_views::{Augmenter, Drawn, Raster, VIEW, Views};

libfuzzer_sys::fuzz_target!(|input: (u8, u8, u8, &str)| {
    let (width, height, seed, text) = input;
    let Ok(views) = caco_pipeline::kind::options().from_str::<Views>(text) else { return };
    // Larger views and longer lists take longer, and show nothing else.
    let is_small = match &views {
        Views::SingleCrop { size } => *size <= 64,
        Views::MultiCrop { size, small, count } => (*size).max(*small) <= 64 && *count <= 8,
        Views::Custom(list) => list.len() <= 8 && list.iter().all(|view| view.size() <= 64 && view.operations.len() <= 16),
    };
    if !is_small || views.check().is_err() {
        return;
    }
    let (width, height) = (usize::from(width) + 1, usize::from(height) + 1);
    let image = Raster::new(width, height);
    let mut augmenter = Augmenter::default();
    for drawn in Drawn::of_sample(&views.list(), VIEW, seed.into(), 0, 0, (width, height)) {
        let mut out = vec![0; drawn.cut.size.pow(2) * 3];
        augmenter.apply(&drawn, &image, &mut out);
    }
});
