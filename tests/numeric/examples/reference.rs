//! Serves tests/reference/check.py: processes images with this crate, for comparison with PIL and torchvision.
//!
//! Each line of standard input is a JSON object. With only `file` the decoded image is written to standard output, with
//! `view` that view of it, with `centre` its resized centre: width and height as 32-bit little-endian numbers, then
//! RGB. For a file that cannot be decoded, 0, 0 is written. With `draw` the parameters of `count` views of one image
//! size are written as one line of JSON.

use anyhow::{Context as _, Result};
use caco_data::{Augmenter, Drawn, Raster, decode::Decoder};
use caco_kinds::{Filter, View};
use serde_json::{Value, json};
use std::io::{BufRead as _, Write as _};

fn main() -> Result<()> {
    let (mut decoder, mut augmenter, mut raster) = (Decoder::default(), Augmenter::default(), Raster::default());
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let order: Value = serde_json::from_str(&line?)?;
        if !order["draw"].is_null() {
            writeln!(out, "{}", draw(&order)?)?;
        } else {
            let file = order["file"].as_str().context("no file")?;
            let (width, height, rgb) = match decoder.decode(&std::fs::read(file)?, &mut raster) {
                Ok(()) => picture(&order, &raster, &mut augmenter)?,
                Err(error) => {
                    eprintln!("{file}: {error:#}");
                    (0, 0, vec![])
                }
            };
            out.write_all(&u32::try_from(width)?.to_le_bytes())?;
            out.write_all(&u32::try_from(height)?.to_le_bytes())?;
            out.write_all(&rgb)?;
        }
        out.flush()?;
    }
    Ok(())
}

fn picture(order: &Value, raster: &Raster, augmenter: &mut Augmenter) -> Result<(usize, usize, Vec<u8>)> {
    let side = |v: &Value| v.as_u64().context("a side is an integer").map(|side| side as usize);
    if let Some(centre) = order.get("centre") {
        let (resize, crop) = (side(&centre["resize"])?, side(&centre["crop"])?);
        let mut out = vec![0; crop * crop * 3];
        augmenter.centre(raster, resize, crop, serde_json::from_value::<Filter>(centre["filter"].clone())?, &mut out);
        return Ok((crop, crop, out));
    }
    if let Some(view) = order.get("view") {
        let drawn: Drawn = serde_json::from_value(view.clone())?;
        let size = drawn.cut.size;
        let mut out = vec![0; size * size * 3];
        augmenter.apply(&drawn, raster, &mut out);
        return Ok((size, size, out));
    }
    Ok((raster.width, raster.height, raster.to_rgb()))
}

fn draw(order: &Value) -> Result<Value> {
    let view: View = serde_json::from_value(order["draw"].clone())?;
    let size = |name: &str| order[name].as_u64().context("a size is an integer").map(|side| side as usize);
    let (width, height, count) = (size("width")?, size("height")?, size("count")?);
    let views = (0..count as u32)
        .map(|sample| json!(Drawn::of_sample(std::slice::from_ref(&view), "view", 0, 0, sample, (width, height))[0]));
    Ok(Value::Array(views.collect()))
}
