//! Synthetic image sets. Classes differ in shape and texture; colour, position, size, rotation and background are
//! random for each image and carry no information about the class.

use anyhow::{Context, Result};
use caco_kinds::{Domain, Synthesize};
use caco_measure::rng::Rng;
use rayon::prelude::*;
use std::{
    f32::consts::TAU,
    fs,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};
use tiny_skia::{
    Color, FillRule, FilterQuality, GradientStop, LineCap, LineJoin, LinearGradient, Paint, Path as Outline,
    PathBuilder, Pattern, Pixmap, Point, SpreadMode, Stroke, Transform,
};

/// Draws a set into `out/train` and `out/test`, in the ImageFolder layout; `progress` is called with the number of
/// images done and the total.
pub fn draw(spec: &Synthesize, out: &Path, progress: impl Fn(u64, u64) + Sync) -> Result<()> {
    let (done, total) = (AtomicU64::new(0), u64::from(spec.train) + u64::from(spec.test));
    for (split, count, purpose) in [("train", spec.train, "synth train"), ("test", spec.test, "synth test")] {
        for class in 0..spec.classes {
            let folder = out.join(split).join(class_name(class));
            fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        (0..count).into_par_iter().try_for_each(|i| {
            let class = i % spec.classes;
            let mut rng = Rng::new(spec.seed, purpose, 0, u64::from(i));
            let image = image(spec.domain, class, spec.size, &mut rng);
            let path = out.join(split).join(class_name(class)).join(format!("{:05}.jpg", i / spec.classes));
            save(&image, spec.quality, &path)?;
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, total);
            anyhow::Ok(())
        })?;
    }
    Ok(())
}

fn class_name(class: u32) -> String {
    format!("class{class:02}")
}

/// One image of a class, `size` pixels square.
pub fn image(domain: Domain, class: u32, size: u32, rng: &mut Rng) -> Pixmap {
    let mut canvas = Pixmap::new(size, size).expect("sizes are checked");
    background(&mut canvas, rng);
    match domain {
        Domain::Shapes => shape(&mut canvas, class, rng),
        Domain::Glyphs => glyphs(&mut canvas, class, rng),
    }
    canvas
}

fn save(image: &Pixmap, quality: u8, path: &Path) -> Result<()> {
    let rgb: Vec<u8> = image.pixels().iter().flat_map(|p| [p.red(), p.green(), p.blue()]).collect();
    let side = u16::try_from(image.width()).context("JPEG holds at most 65535 pixels a side")?;
    let mut bytes = vec![];
    jpeg_encoder::Encoder::new(&mut bytes, quality)
        .encode(&rgb, side, side, jpeg_encoder::ColorType::Rgb)
        .with_context(|| format!("cannot encode {}", path.display()))?;
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

/// A tinted grey. Strong colours would identify an image better than its shape does, and a network trained to
/// discriminate images would learn them instead; a tint this weak does not survive the colour jitter.
fn colour(rng: &mut Rng) -> Color {
    let grey = rng.range(0.1, 0.9);
    let mut channel = || (grey + rng.range(-0.1, 0.1)).clamp(0.0, 1.0) as f32;
    Color::from_rgba(channel(), channel(), channel(), 1.0).expect("channels are in 0 to 1")
}

/// A slightly lighter, darker or differently tinted colour.
fn nearby(of: Color, rng: &mut Rng) -> Color {
    let mut shifted = |channel: f32| (channel + rng.range(-0.12, 0.12) as f32).clamp(0.0, 1.0);
    Color::from_rgba(shifted(of.red()), shifted(of.green()), shifted(of.blue()), 1.0).expect("channels are in 0 to 1")
}

/// A colour that contrasts with another: its lightness differs by at least a third.
fn contrasting(with: Color, rng: &mut Rng) -> Color {
    let light = |c: Color| 0.3 * c.red() + 0.59 * c.green() + 0.11 * c.blue();
    loop {
        let candidate = colour(rng);
        if (light(candidate) - light(with)).abs() > 0.3 {
            return candidate;
        }
    }
}

fn paint<'a>(colour: Color) -> Paint<'a> {
    let mut paint = Paint::default();
    paint.set_color(colour);
    paint.anti_alias = true;
    paint
}

/// A gradient between two nearby colours, with a few strokes and patches.
fn background(canvas: &mut Pixmap, rng: &mut Rng) {
    let side = canvas.width() as f32;
    let mut at = || Point::from_xy(rng.range(0.0, f64::from(side)) as f32, rng.range(0.0, f64::from(side)) as f32);
    let (from, to) = (at(), at());
    let ground = colour(rng);
    let stops = vec![GradientStop::new(0.0, ground), GradientStop::new(1.0, nearby(ground, rng))];
    let mut shaded = Paint::default();
    if let Some(shader) = LinearGradient::new(from, to, stops, SpreadMode::Pad, Transform::identity()) {
        shaded.shader = shader;
    }
    let whole = tiny_skia::Rect::from_xywh(0.0, 0.0, side, side).expect("sizes are checked");
    canvas.fill_rect(whole, &shaded, Transform::identity(), None);
    for _ in 0..1 + rng.below(3) {
        let outline = blob(side, rng);
        let stroke =
            Stroke { width: side * rng.range(0.02, 0.05) as f32, line_cap: LineCap::Round, ..Stroke::default() };
        let paint = paint(nearby(ground, rng));
        if rng.chance(0.5) {
            canvas.stroke_path(&outline, &paint, &stroke, Transform::identity(), None);
        } else {
            canvas.fill_path(&outline, &paint, FillRule::Winding, Transform::identity(), None);
        }
    }
}

/// A small shape of no class.
fn blob(side: f32, rng: &mut Rng) -> Outline {
    let mut at = |low: f64, high: f64| rng.range(low, high) as f32;
    let (x, y) = (at(0.0, 1.0) * side, at(0.0, 1.0) * side);
    let mut path = PathBuilder::new();
    path.move_to(x, y);
    for _ in 0..3 {
        let (dx, dy) = (at(-0.22, 0.22) * side, at(-0.22, 0.22) * side);
        path.quad_to(x + dx, y - dy, x + dy, y + dx);
    }
    path.finish().unwrap_or_else(|| PathBuilder::from_circle(x, y, side * 0.05).expect("a circle is a path"))
}

/// Size, rotation and position of a figure that is drawn around the origin with radius 1.
fn placement(side: f32, radius: (f64, f64), rng: &mut Rng) -> Transform {
    let radius = rng.range(radius.0, radius.1) as f32 * side;
    let margin = (radius * 0.85).min(side / 2.0);
    let mut along = || rng.range(f64::from(margin), f64::from(side - margin)) as f32;
    let (x, y) = (along(), along());
    let turn = rng.range(0.0, 360.0) as f32;
    let (squeeze, lean) = (rng.range(0.8, 1.0) as f32, rng.range(-0.15, 0.15) as f32);
    Transform::from_row(1.0, 0.0, lean, 1.0, 0.0, 0.0)
        .post_scale(radius, radius * squeeze)
        .post_rotate(turn)
        .post_translate(x, y)
}

fn shape(canvas: &mut Pixmap, class: u32, rng: &mut Rng) {
    let side = canvas.width() as f32;
    let place = placement(side, (0.42, 0.6), rng);
    let fill = colour(rng);
    let tile = texture(class % 8, fill, contrasting(fill, rng));
    let grain = side * rng.range(0.014, 0.019) as f32;
    let turned = Transform::from_rotate(rng.range(0.0, 360.0) as f32).post_scale(grain, grain);
    let Some(outline) = figure(class % 8, class / 8).and_then(|outline| outline.transform(place)) else { return };
    let textured = Paint {
        shader: Pattern::new(tile.as_ref(), SpreadMode::Repeat, FilterQuality::Bilinear, 1.0, turned),
        ..Paint::default()
    };
    canvas.fill_path(&outline, &textured, FillRule::EvenOdd, Transform::identity(), None);
    let edge = Stroke { width: side * 0.03, line_join: LineJoin::Round, ..Stroke::default() };
    canvas.stroke_path(&outline, &paint(contrasting(fill, rng)), &edge, Transform::identity(), None);
}

/// A tile of 16 × 16 pixels in two colours.
fn texture(kind: u32, ground: Color, mark: Color) -> Pixmap {
    let mut tile = Pixmap::new(16, 16).expect("16 pixels are a size");
    tile.fill(ground);
    let paint = paint(mark);
    let mut rect = |x: f32, y: f32, w: f32, h: f32| {
        let rect = tiny_skia::Rect::from_xywh(x, y, w, h).expect("tiles are made of proper rectangles");
        tile.fill_rect(rect, &paint, Transform::identity(), None);
    };
    match kind {
        // Broad stripes, narrow stripes, checks, a grid, bricks; then dots, rings and wedges.
        0 => rect(0.0, 0.0, 16.0, 8.0),
        1 => [0.0, 8.0].into_iter().for_each(|y| rect(0.0, y, 16.0, 3.0)),
        2 => [0.0, 8.0].into_iter().for_each(|at| rect(at, at, 8.0, 8.0)),
        3 => {
            rect(0.0, 0.0, 4.0, 16.0);
            rect(0.0, 0.0, 16.0, 4.0);
        }
        4 => {
            rect(1.0, 1.0, 14.0, 6.0);
            rect(0.0, 9.0, 7.0, 6.0);
            rect(9.0, 9.0, 7.0, 6.0);
        }
        _ => {
            let mut path = PathBuilder::new();
            match kind {
                5 => path.push_circle(8.0, 8.0, 5.0),
                6 => {
                    path.push_circle(8.0, 8.0, 7.0);
                    path.push_circle(8.0, 8.0, 4.0);
                }
                _ => {
                    path.move_to(0.0, 16.0);
                    path.line_to(8.0, 0.0);
                    path.line_to(16.0, 16.0);
                    path.close();
                }
            }
            let outline = path.finish().expect("every tile has an outline");
            tile.fill_path(&outline, &paint, FillRule::EvenOdd, Transform::identity(), None);
        }
    }
    tile
}

/// The outline of a class, around the origin with radius 1; the second family has a hole.
fn figure(class: u32, family: u32) -> Option<Outline> {
    let mut path = PathBuilder::new();
    match class {
        0 => path.push_circle(0.0, 0.0, 0.9),
        1 => polygon(&mut path, 4, &[1.0]),
        2 => polygon(&mut path, 3, &[1.0]),
        3 => polygon(&mut path, 10, &[1.0, 0.42]),
        4 => cross(&mut path),
        5 => {
            path.push_circle(0.0, 0.0, 0.95);
            path.push_circle(0.0, 0.0, 0.55);
        }
        6 => crescent(&mut path),
        _ => polygon(&mut path, 8, &[1.0, 0.25]),
    }
    if family > 0 {
        path.push_circle(0.0, 0.0, 0.22);
    }
    path.finish()
}

/// A closed polygon whose corners have these radii in turn.
fn polygon(path: &mut PathBuilder, corners: u32, radii: &[f32]) {
    for i in 0..corners {
        let (angle, radius) = (TAU * i as f32 / corners as f32, radii[i as usize % radii.len()]);
        let (x, y) = (radius * angle.cos(), radius * angle.sin());
        if i == 0 { path.move_to(x, y) } else { path.line_to(x, y) }
    }
    path.close();
}

fn cross(path: &mut PathBuilder) {
    const ARM: f32 = 0.32;
    let corners = [
        (-ARM, -1.0),
        (ARM, -1.0),
        (ARM, -ARM),
        (1.0, -ARM),
        (1.0, ARM),
        (ARM, ARM),
        (ARM, 1.0),
        (-ARM, 1.0),
        (-ARM, ARM),
        (-1.0, ARM),
        (-1.0, -ARM),
        (-ARM, -ARM),
    ];
    for (i, (x, y)) in corners.into_iter().enumerate() {
        if i == 0 { path.move_to(x, y) } else { path.line_to(x, y) }
    }
    path.close();
}

fn crescent(path: &mut PathBuilder) {
    path.move_to(-0.3, -0.95);
    path.cubic_to(1.2, -0.9, 1.2, 0.9, -0.3, 0.95);
    path.cubic_to(0.5, 0.5, 0.5, -0.5, -0.3, -0.95);
    path.close();
}

/// Two or three copies of a stroke pattern.
fn glyphs(canvas: &mut Pixmap, class: u32, rng: &mut Rng) {
    let side = canvas.width() as f32;
    let ink = colour(rng);
    for _ in 0..2 + rng.below(2) {
        let place = placement(side, (0.16, 0.27), rng);
        let Some(outline) = glyph(class, rng).and_then(|outline| outline.transform(place)) else { continue };
        let stroke = Stroke {
            width: side * rng.range(0.045, 0.075) as f32,
            line_cap: LineCap::Round,
            line_join: LineJoin::Round,
            ..Stroke::default()
        };
        let halo = Stroke { width: stroke.width * 1.8, ..stroke.clone() };
        canvas.stroke_path(&outline, &paint(contrasting(ink, rng)), &halo, Transform::identity(), None);
        canvas.stroke_path(&outline, &paint(ink), &stroke, Transform::identity(), None);
    }
}

/// The strokes of each class, each a list of points.
const STROKES: [&[&[(f32, f32)]]; 16] = [
    &[&[(-0.8, -0.9), (-0.8, 0.9), (0.8, 0.9)]],
    &[&[(-0.9, -0.8), (0.9, -0.8)], &[(0.0, -0.8), (0.0, 0.9)]],
    &[&[(-0.8, -0.8), (0.8, 0.8)], &[(-0.8, 0.8), (0.8, -0.8)]],
    &[&[(-0.8, -0.8), (0.8, -0.8), (-0.8, 0.8), (0.8, 0.8)]],
    &[&[(-0.8, -0.9), (-0.8, 0.9)], &[(0.8, -0.9), (0.8, 0.9)], &[(-0.8, 0.0), (0.8, 0.0)]],
    &[&[(-0.9, 0.9), (0.0, -0.9), (0.9, 0.9)]],
    &[&[(-0.9, -0.5), (0.9, -0.5)], &[(-0.9, 0.5), (0.9, 0.5)]],
    &[&[(-0.8, 0.8), (-0.8, -0.8), (0.8, -0.8), (0.8, 0.8)]],
    &[&[(-0.9, 0.9), (-0.45, -0.9), (0.0, 0.9), (0.45, -0.9), (0.9, 0.9)]],
    &[&[(0.0, 0.9), (0.0, 0.0), (-0.8, -0.9)], &[(0.0, 0.0), (0.8, -0.9)]],
    &[&[(-0.8, -0.9), (-0.8, 0.9)], &[(0.8, -0.9), (-0.8, 0.0), (0.8, 0.9)]],
    &[&[(0.8, -0.9), (-0.8, -0.9), (-0.8, 0.9), (0.8, 0.9)], &[(-0.8, 0.0), (0.5, 0.0)]],
    &[&[(0.0, -0.9), (0.0, 0.9)], &[(-0.9, 0.0), (0.9, 0.0)], &[(-0.6, -0.6), (0.6, 0.6)]],
    &[&[(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8), (-0.8, -0.8), (0.8, 0.8)]],
    &[&[(-0.9, -0.9), (-0.3, -0.9), (-0.3, 0.0), (0.3, 0.0), (0.3, 0.9), (0.9, 0.9)]],
    &[&[(0.0, -0.9), (0.8, 0.0), (0.0, 0.9), (-0.8, 0.0), (0.0, -0.9)]],
];

/// The strokes of a class with every point jittered.
fn glyph(class: u32, rng: &mut Rng) -> Option<Outline> {
    let mut path = PathBuilder::new();
    for stroke in STROKES[class as usize % STROKES.len()] {
        for (i, (x, y)) in stroke.iter().enumerate() {
            let mut moved = |v: f32| v + rng.range(-0.12, 0.12) as f32;
            let (x, y) = (moved(*x), moved(*y));
            if i == 0 { path.move_to(x, y) } else { path.line_to(x, y) }
        }
    }
    path.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> Synthesize {
        Synthesize { domain: Domain::Shapes, classes: 3, train: 9, test: 4, size: 32, quality: 90, seed: 1 }
    }

    #[test]
    fn classes_are_even_and_files_the_same_each_time() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        folders.iter().for_each(|f| draw(&spec(), f.path(), |_, _| ()).unwrap());
        for file in ["train/class00/00002.jpg", "train/class02/00002.jpg", "test/class00/00001.jpg"] {
            let read = |f: &tempfile::TempDir| fs::read(f.path().join(file)).unwrap();
            assert_eq!(read(&folders[0]), read(&folders[1]), "{file}");
        }
        assert!(!folders[0].path().join("train/class00/00003.jpg").exists());
    }

    #[test]
    fn every_class_and_domain_draws_something_of_its_own() {
        for domain in [Domain::Shapes, Domain::Glyphs] {
            let drawn: std::collections::BTreeSet<Vec<u8>> =
                (0..16).map(|class| image(domain, class, 48, &mut Rng::new(0, "test", 0, 0)).take()).collect();
            assert_eq!(drawn.len(), 16, "{domain:?}");
        }
    }
}
