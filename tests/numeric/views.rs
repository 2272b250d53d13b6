//! The pixels of views do not change: digests of what every operation and both presets draw, for images of several sizes.
//! Results in users' caches depend on them.

use caco_data::{
    Augmenter, Drawn, Loader, Raster, Reading, Transform, batch::Source as _, dataset::Dataset, format, index,
};
use caco_kinds::{Decode, Format, View, Views};
use caco_measure::rng::Rng;
use serde_json::{Value, json};
use std::path::Path;

/// Widths and heights: odd, narrow, smaller than the views, and just one pixel.
const SIZES: [(usize, usize); 7] = [(40, 30), (33, 57), (301, 199), (64, 64), (9, 50), (5, 7), (1, 1)];

/// A view of this size with further operations.
fn view(size: u32, operations: &[Value]) -> Value {
    let crop = json!({"Crop": {"size": size, "scale": [0.2, 1.0]}});
    [&[crop], operations].concat().into()
}

fn jitter(contrast: f64, saturation: f64, p: f64) -> Value {
    json!({"Jitter": {"brightness": 0.4, "contrast": contrast, "saturation": saturation, "hue": 0.1, "p": p}})
}

/// An operation that has only a probability.
fn operation(kind: &str, p: f64) -> Value {
    json!({kind: {"p": p}})
}

fn cases() -> Vec<(&'static str, Value)> {
    let two = |kind: &str| json!({"Custom": [view(19, &[operation(kind, 0.5)]), view(19, &[operation(kind, 1.0)])]});
    let all = |size| {
        let others = [("Grey", 0.3), ("Blur", 0.6), ("Solarize", 0.4), ("Flip", 0.5)];
        let others: Vec<Value> = others.map(|(kind, p)| operation(kind, p)).into();
        view(size, &[vec![jitter(0.3, 0.2, 0.8)], others].concat())
    };
    vec![
        ("SingleCrop", json!({"SingleCrop": {"size": 24}})),
        ("SingleCrop, odd", json!({"SingleCrop": {"size": 33}})),
        ("MultiCrop", json!({"MultiCrop": {"size": 32, "small": 13, "count": 3}})),
        ("crop", json!({"Custom": [view(17, &[]), view(17, &[]), view(64, &[])]})),
        ("jitter", json!({"Custom": [view(19, &[jitter(0.4, 0.4, 0.8)]), view(19, &[jitter(0.4, 0.4, 1.0)])]})),
        ("grey", two("Grey")),
        ("blur", two("Blur")),
        ("solarize", two("Solarize")),
        ("flip", two("Flip")),
        ("every operation", json!({"Custom": [all(29), all(29), all(15)]})),
    ]
}

/// The digests of the cases, and of what a loader gives with each way of decoding.
const DIGESTS: &[(&str, &str)] = &[
    ("SingleCrop", "d465f5b34c03cb90"),
    ("SingleCrop, Full", "be3ac532430f64fb"),
    ("SingleCrop, Scaled", "8b8d0b657b2c0227"),
    ("SingleCrop, odd", "e71f1c16521d07f2"),
    ("SingleCrop, odd, Full", "8313dc1ef1cec8ee"),
    ("SingleCrop, odd, Scaled", "5e3834573e8df4c2"),
    ("MultiCrop", "8c3428dee1463231"),
    ("MultiCrop, Full", "0418800afa087bc3"),
    ("MultiCrop, Scaled", "d283cf8c875b2ad6"),
    ("crop", "d6c56d2bb182d009"),
    ("crop, Full", "2d41bc6f3fd32619"),
    ("crop, Scaled", "13966c8d39b7af57"),
    ("jitter", "a35c969a9f8809b1"),
    ("jitter, Full", "8cc24e2c634906f8"),
    ("jitter, Scaled", "db83ea46a86b75e9"),
    ("grey", "e412664ba49687c5"),
    ("grey, Full", "8be5033ca1116707"),
    ("grey, Scaled", "88b97e577ad09a11"),
    ("blur", "840328d988dfeeff"),
    ("blur, Full", "86698441cd7269be"),
    ("blur, Scaled", "2ff545d8dae51ebf"),
    ("solarize", "80f95e31c9f4a28e"),
    ("solarize, Full", "269a91d12cc9c0e2"),
    ("solarize, Scaled", "58c5961b18b1a25a"),
    ("flip", "9ada347b04f5132a"),
    ("flip, Full", "4580d50dbfdfbc4b"),
    ("flip, Scaled", "1800964da5966cdc"),
    ("every operation", "ab42ba0e413b747b"),
    ("every operation, Full", "40750d02f055314e"),
    ("every operation, Scaled", "2c4cc267106d707c"),
];

fn image(width: usize, height: usize) -> Raster {
    let mut rng = Rng::new(5, "image", width as u64, height as u64);
    let (across, down) = (rng.range(0.05, 0.4), rng.range(0.05, 0.4));
    let rgb: Vec<u8> = (0..width * height * 3)
        .map(|i| {
            let (x, y, c) = (i / 3 % width, i / 3 / width, i % 3);
            let wave = ((x as f64 * across + y as f64 * down) as usize * 37 + c * 80) % 256;
            (wave as u64 + rng.below(40)).min(255) as u8
        })
        .collect();
    Raster::from_rgb(width, height, &rgb)
}

fn drawn(views: &[View]) -> blake3::Hasher {
    let (mut hasher, mut augmenter) = (blake3::Hasher::new(), Augmenter::default());
    for (sample, size) in (0..).zip(SIZES) {
        let image = image(size.0, size.1);
        for epoch in 0..20 {
            for drawn in Drawn::of_sample(views, "view", 3, epoch, sample, size) {
                let mut out = vec![0; drawn.cut.size.pow(2) * 3];
                augmenter.apply(&drawn, &image, &mut out);
                hasher.update(&out);
            }
        }
    }
    hasher
}

/// JPEG files that are large enough to be decoded at a part of their size.
fn files(folder: &Path) -> Dataset {
    for (number, size) in [(301u16, 199u16), (240, 320), (97, 64)].into_iter().enumerate() {
        let path = folder.join(format!("{number}/image.jpg"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let pixels = image(size.0.into(), size.1.into()).to_rgb();
        let encoder = jpeg_encoder::Encoder::new_file(path, 90).unwrap();
        encoder.encode(&pixels, size.0, size.1, jpeg_encoder::ColorType::Rgb).unwrap();
    }
    index::build(folder, format::list(Format::ImageFolder, None, folder).unwrap(), |_, _| ()).0
}

fn loaded(set: &Dataset, views: &[View], decode: Decode) -> blake3::Hasher {
    let transform = Transform::Views(views.to_vec());
    let reading = Reading { transform, batch: 3, shuffle: true, drop_last: false, seed: 7, threads: 2 };
    let loader = Loader::new(set, reading).unwrap().decoding(decode);
    let mut hasher = blake3::Hasher::new();
    for epoch in 0..10 {
        for batch in loader.epoch(epoch, 0).unwrap() {
            batch.unwrap().views.iter().for_each(|view| _ = hasher.update(&view.data));
        }
    }
    hasher
}

#[test]
fn views_keep_their_pixels() {
    let folder = tempfile::tempdir().unwrap();
    let set = files(folder.path());
    let mut found = vec![];
    for (name, views) in cases() {
        let views: Views = serde_json::from_value(views).unwrap();
        views.check().unwrap();
        let views = views.list();
        found.push((name.to_string(), drawn(&views)));
        for decode in [Decode::Full, Decode::Scaled] {
            found.push((format!("{name}, {decode:?}"), loaded(&set, &views, decode)));
        }
    }
    let found: Vec<(String, String)> =
        found.into_iter().map(|(name, hasher)| (name, hasher.finalize().to_hex()[..16].into())).collect();
    let expected: Vec<(String, String)> =
        DIGESTS.iter().map(|(name, digest)| (name.to_string(), digest.to_string())).collect();
    assert!(found == expected, "{found:#?}");
}
