//! WebP: the first frame of an animation, which Pillow (libwebp) puts on an empty canvas as it is.

use std::borrow::Cow;

/// Where the chunks of a file start.
const CHUNKS: usize = 12;
/// The place of a frame's flags in its chunk, and the flag that says not to blend it.
const FLAGS: usize = 15;
const NO_BLENDING: u8 = 2;

/// The file with a first frame that is not blended with the canvas. The `image` crate would blend it with transparent
/// black, which changes the colours of transparent pixels.
pub fn unblended(file: &[u8]) -> Cow<'_, [u8]> {
    let Some(flags) = flags_of_first(file).filter(|flags| file[*flags] & NO_BLENDING == 0) else { return file.into() };
    let mut file = file.to_vec();
    file[flags] |= NO_BLENDING;
    file.into()
}

/// The place of the flags of the first frame; `None` in a still image.
fn flags_of_first(file: &[u8]) -> Option<usize> {
    let mut at = CHUNKS;
    loop {
        let length = u32::from_le_bytes(*file.get(at + 4..)?.first_chunk()?) as usize;
        if file[at..].starts_with(b"ANMF") {
            return Some(at + 8 + FLAGS).filter(|flags| *flags < file.len());
        }
        at = (at + 8).checked_add(length.next_multiple_of(2))?;
    }
}
