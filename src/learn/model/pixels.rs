//! Converts image bytes to the input of a network.

use crate::bridge::{self, Sent};
use anyhow::Result;
use caco_data::batch::Pixels;
use tch::{Device, Kind, Tensor};

/// Mean of ImageNet's red, green and blue, as fractions of 255. All input is normalised with it.
pub const MEAN: [f64; 3] = [0.485, 0.456, 0.406];
/// Standard deviation of ImageNet's red, green and blue, as fractions of 255.
pub const STD: [f64; 3] = [0.229, 0.224, 0.225];

/// N × H × W × 3 bytes → f32 [N, 3, H, W] on `device`, channels-last in memory, (x/255 − mean) / std.
///
/// Bytes are copied to the device, which is a quarter of the size of floats; to a GPU asynchronously.
pub fn normalise(pixels: &Pixels, device: Device) -> Tensor {
    let bytes = with_bytes(pixels, |bytes| bridge::upload(bytes, device).map(|bytes| normalise_bytes(&bytes)));
    bytes.unwrap_or_else(|error| panic!("{error:#}"))
}

/// Starts to copy pixels to GPU `number`, for [`normalise_bytes`] there.
pub fn send(pixels: &Pixels, number: usize) -> Result<Sent> {
    with_bytes(pixels, |bytes| bridge::send(bytes, number))
}

/// Calls `then` with the pixels as a tensor that shares their memory. No such tensor may outlive the call.
fn with_bytes<T>(pixels: &Pixels, then: impl FnOnce(&Tensor) -> T) -> T {
    let (height, width) = pixels.size;
    let size = [pixels.count as i64, height as i64, width as i64, 3];
    assert_eq!(pixels.data.len() as i64, size.iter().product::<i64>(), "pixels of {size:?}");
    // SAFETY: the blob is contiguous and only read, and does not outlive this call.
    then(&unsafe { Tensor::from_blob(pixels.data.as_ptr(), &size, &[], Kind::Uint8, Device::Cpu) })
}

/// [`normalise`], for bytes [N, H, W, 3] that are on their device.
pub fn normalise_bytes(bytes: &Tensor) -> Tensor {
    // Created on the device: a copy from the CPU would wait for the device.
    let one = |value: f64| Tensor::full([1], value * 255.0, (Kind::Float, bytes.device()));
    let scale = |values: [f64; 3]| Tensor::cat(&values.map(one), 0);
    let mut floats = bytes.to_kind(Kind::Float);
    let _ = floats.subtract_(&scale(MEAN));
    let _ = floats.divide_(&scale(STD));
    floats.permute([0, 3, 1, 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_become_centred_channels() {
        let data: Vec<u8> = (0..2 * 2 * 3 * 3).map(|i| (i * 7) as u8).collect();
        let pixels = Pixels { count: 2, size: (2, 3), data: data.clone().into() };
        let x = normalise(&pixels, Device::Cpu);
        assert_eq!(x.size(), [2, 3, 2, 3]);
        assert_eq!(x.stride(), [18, 1, 9, 3], "channels-last");
        for (n, c, h, w) in [(0, 0, 0, 0), (1, 2, 1, 2), (0, 1, 1, 0)] {
            let byte = f64::from(data[((n * 2 + h) * 3 + w) * 3 + c]);
            let expected = (byte / 255.0 - MEAN[c]) / STD[c];
            let got = x.double_value(&[n as i64, c as i64, h as i64, w as i64]);
            assert!((got - expected).abs() < 1e-6, "{got} {expected}");
        }
    }
}
