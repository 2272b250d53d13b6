#![no_main]
//! Images of every format, decoded in full and at reduced size.

use caco_data::{Raster, decode::Decoder};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let (mut decoder, mut raster) = (Decoder::default(), Raster::default());
    for scale in [1, 4] {
        if decoder.decode_scaled(bytes, scale, &mut raster).is_ok() {
            assert_eq!(raster.pixels.len(), raster.width * raster.height);
        }
    }
});
