//! PNG: files that Pillow reads although the checksum of a chunk of pixels is wrong, or the last chunk is missing; and
//! grey of 16 bits, which it reads in a mode of its own.

const SIGNATURE: usize = 8;
/// Length, kind and checksum of a chunk.
const FRAME: usize = 12;
const PIXELS: &[u8; 4] = b"IDAT";
const END: &[u8; 4] = b"IEND";
/// The place of bits per sample and colour type, and their values in an image of 16 bits grey.
const SAMPLES: usize = 24;
const GREY_16: [u8; 2] = [16, 0];

/// Whether the file is grey of 16 bits, with or without a transparent colour.
pub fn is_grey_16(file: &[u8]) -> bool {
    file.get(SAMPLES..).is_some_and(|samples| samples.starts_with(&GREY_16))
}

/// The file with right checksums of its pixels and with an end; `None` if neither is its fault, or if it is truncated
/// within a chunk.
pub fn repaired(file: &[u8]) -> Option<Vec<u8>> {
    let mut repaired = file.to_vec();
    let mut at = SIGNATURE;
    let ended = loop {
        if at == file.len() {
            break false;
        }
        let length = u32::from_be_bytes(*file.get(at..)?.first_chunk()?) as usize;
        let next = at.checked_add(length)?.checked_add(FRAME)?;
        let chunk = file.get(at + 4..next - 4)?;
        file.get(..next)?;
        if chunk.starts_with(PIXELS) {
            repaired[next - 4..next].copy_from_slice(&checksum(chunk));
        } else if chunk.starts_with(END) {
            break true;
        }
        at = next;
    };
    if !ended {
        repaired.extend([&[0; 4][..], END, &checksum(END)].concat());
    }
    (repaired != file).then_some(repaired)
}

fn checksum(chunk: &[u8]) -> [u8; 4] {
    let mut sum = flate2::Crc::new();
    sum.update(chunk);
    sum.sum().to_be_bytes()
}
