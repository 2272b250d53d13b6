//! A view as it was written before it was a list of operations. It is read only to say what to write instead.

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(rename = "View", deny_unknown_fields)]
pub(super) struct Former {
    size: u32,
    scale: (f64, f64),
    #[serde(default)]
    jitter: Jitter,
    #[serde(default)]
    jitter_p: f64,
    #[serde(default)]
    grey_p: f64,
    #[serde(default)]
    blur_p: f64,
    #[serde(default)]
    solarize_p: f64,
    #[serde(default)]
    flip_p: f64,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Jitter {
    brightness: f64,
    contrast: f64,
    saturation: f64,
    hue: f64,
}

impl Former {
    /// The same view as it is written now.
    pub(super) fn now(&self) -> String {
        let mut operations = vec![format!("Crop(size: {}, scale: {:?})", self.size, self.scale)];
        if self.jitter_p > 0.0 {
            let Jitter { brightness, contrast, saturation, hue } = self.jitter;
            operations.push(format!(
                "Jitter(brightness: {brightness:?}, contrast: {contrast:?}, saturation: {saturation:?}, hue: {hue:?}, p: {:?})",
                self.jitter_p
            ));
        }
        let others =
            [("Grey", self.grey_p), ("Blur", self.blur_p), ("Solarize", self.solarize_p), ("Flip", self.flip_p)];
        operations.extend(others.iter().filter(|(_, p)| *p > 0.0).map(|(kind, p)| format!("{kind}(p: {p:?})")));
        format!("[{}]", operations.join(", "))
    }
}
