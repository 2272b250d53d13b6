//! Compares decoding and augmentation with the results of PIL and torchvision for the same files
//! (tests/reference/golden.py).

use caco_data::{Augmenter, Drawn, Raster, decode::Decoder};
use serde_json::Value;

fn bytes(hexadecimal: &Value) -> Vec<u8> {
    let digits = hexadecimal.as_str().unwrap().as_bytes();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn ours(order: &Value, raster: &Raster, augmenter: &mut Augmenter) -> Vec<u8> {
    if let Some(view) = order.get("view") {
        let drawn: Drawn = serde_json::from_value(view.clone()).unwrap();
        let mut out = vec![0; drawn.cut.size.pow(2) * 3];
        augmenter.apply(&drawn, raster, &mut out);
        return out;
    }
    if let Some(centre) = order.get("centre") {
        let side = |name: &str| centre[name].as_u64().unwrap() as usize;
        let mut out = vec![0; side("crop").pow(2) * 3];
        let filter = serde_json::from_value(centre["filter"].clone()).unwrap();
        augmenter.centre(raster, side("resize"), side("crop"), filter, &mut out);
        return out;
    }
    raster.to_rgb()
}

#[test]
fn pixels_match_pil_and_torchvision() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("../reference/golden.json")).unwrap();
    assert!(cases.len() > 60, "only {} cases", cases.len());
    let (mut decoder, mut augmenter, mut raster) = (Decoder::default(), Augmenter::default(), Raster::default());
    for case in cases {
        let name = &case["name"];
        let decoded = decoder.decode(&bytes(&case["file"]), &mut raster);
        assert_eq!(decoded.is_ok(), case.get("rgb").is_some(), "{name}: {decoded:?}");
        if decoded.is_ok() {
            let (got, expected) = (ours(&case["order"], &raster, &mut augmenter), bytes(&case["rgb"]));
            assert_eq!(got.len(), expected.len(), "{name}: size");
            let worst = got.iter().zip(&expected).map(|(a, b)| a.abs_diff(*b)).max();
            assert_eq!(worst, Some(0), "{name}: pixels differ");
        }
    }
}
