//! Writes the curve as TensorBoard event files. They are a by-product, because events contain the time.
//!
//! An event file is a sequence of records, each a protobuf message `Event` between a length and checksums
//! (tensorflow/core/lib/io/record_writer.h, tensorflow/core/util/event.proto).

use anyhow::{Context as _, Result};
use caco_learn::train::{curve::Row, pace::Speed};
use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// An event file, created with the first rows.
pub struct Events {
    folder: PathBuf,
    file: Option<File>,
}

impl Events {
    /// Events in `folder`. Each attempt of a stage writes a separate file there; TensorBoard joins them.
    pub fn into_folder(folder: &Path) -> Self {
        Events { folder: folder.into(), file: None }
    }

    /// Adds rows and the speed of their steps.
    pub fn write(&mut self, rows: &[Row], speed: Speed) -> Result<()> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut records = Vec::new();
        if self.file.is_none() {
            fs::create_dir_all(&self.folder)
                .with_context(|| format!("cannot create the folder {}", self.folder.display()))?;
            // TensorBoard recognises its files by this name, and sorts by it.
            let name = format!("events.out.tfevents.{:010}.{}.caco", now.as_secs(), std::process::id());
            let path = self.folder.join(name);
            self.file = Some(File::create(&path).with_context(|| format!("cannot write {}", path.display()))?);
            record(&mut records, &version(now.as_secs_f64()));
        }
        for row in rows {
            record(&mut records, &event(row.step, &figures(row), now.as_secs_f64()));
        }
        let rates = [("images per second", speed.images_per_second), ("loader wait", speed.loader_wait)];
        record(&mut records, &event(speed.step, &rates, now.as_secs_f64()));
        let file = self.file.as_mut().context("opened above")?;
        file.write_all(&records).with_context(|| format!("cannot write events into {}", self.folder.display()))
    }
}

/// `Event { wall_time = 1: double, file_version = 3: string }`.
fn version(time: f64) -> Vec<u8> {
    let mut message = Vec::new();
    double(&mut message, 1, time);
    bytes(&mut message, 3, b"brain.Event:2");
    message
}

/// `Event { wall_time = 1: double, step = 2: int64, summary = 5: Summary { value = 1: Value { tag = 1, simple_value = 2 } } }`.
fn event(step: u64, figures: &[(&str, f64)], time: f64) -> Vec<u8> {
    let mut summary = Vec::new();
    for (tag, figure) in figures {
        let mut value = Vec::new();
        bytes(&mut value, 1, tag.as_bytes());
        value.push(2 << 3 | 5);
        value.extend((*figure as f32).to_le_bytes());
        bytes(&mut summary, 1, &value);
    }
    let mut message = Vec::new();
    double(&mut message, 1, time);
    message.push(2 << 3);
    varint(&mut message, step);
    bytes(&mut message, 5, &summary);
    message
}

/// The metrics of a step, by tag.
fn figures(row: &Row) -> Vec<(&str, f64)> {
    let values = row.values.iter().map(|(name, value)| (name.as_ref(), *value));
    values.chain(row.knn.map(|knn| ("knn", knn))).collect()
}

fn double(message: &mut Vec<u8>, field: u8, value: f64) {
    message.push(field << 3 | 1);
    message.extend(value.to_le_bytes());
}

fn bytes(message: &mut Vec<u8>, field: u8, value: &[u8]) {
    message.push(field << 3 | 2);
    varint(message, value.len() as u64);
    message.extend(value);
}

fn varint(message: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        message.push(value as u8 | 0x80);
        value >>= 7;
    }
    message.push(value as u8);
}

fn record(to: &mut Vec<u8>, message: &[u8]) {
    let length = (message.len() as u64).to_le_bytes();
    to.extend(length);
    to.extend(masked_checksum(&length).to_le_bytes());
    to.extend(message);
    to.extend(masked_checksum(message).to_le_bytes());
}

/// CRC-32C, rotated and offset as the record format requires.
fn masked_checksum(data: &[u8]) -> u32 {
    checksum(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli), bit by bit: a kilobyte per step needs no table.
fn checksum(data: &[u8]) -> u32 {
    !data.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_castagnolis() {
        // RFC 3720, appendix B.4.
        assert_eq!(checksum(&[0; 32]), 0x8a91_36aa);
        assert_eq!(checksum(&(0..32).collect::<Vec<u8>>()), 0x46dd_794e);
    }

    #[test]
    fn an_event_is_encoded_as_protobuf() {
        let mut message = Vec::new();
        varint(&mut message, 300);
        bytes(&mut message, 1, b"loss");
        assert_eq!(message, [0xac, 0x02, 0x0a, 4, b'l', b'o', b's', b's']);
    }

    #[test]
    fn records_follow_one_another_in_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let row = Row { epoch: 0, step: 1, values: vec![("loss".into(), 2.5)], knn: Some(0.25) };
        let mut events = Events::into_folder(folder.path());
        let speed = Speed { step: 2, images_per_second: 310.0, loader_wait: 0.01 };
        events.write(&[row.clone(), Row { step: 2, knn: None, ..row }], speed).unwrap();
        let path = fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
        let file = fs::read(path).unwrap();
        let (mut at, mut records) = (0, Vec::new());
        while at < file.len() {
            let length = u64::from_le_bytes(file[at..at + 8].try_into().unwrap()) as usize;
            let message = &file[at + 12..at + 12 + length];
            let sum = u32::from_le_bytes(file[at + 12 + length..at + 16 + length].try_into().unwrap());
            assert_eq!(sum, masked_checksum(message));
            records.push(message.to_vec());
            at += 16 + length;
        }
        assert_eq!(records.len(), 4);
        let holds = |record: &[u8], bytes: &[u8]| record.windows(bytes.len()).any(|w| w == bytes);
        assert!(holds(&records[0], b"brain.Event:2"));
        assert!(holds(&records[1], &[b"\x0a\x04loss\x15".as_slice(), &2.5f32.to_le_bytes()].concat()));
        assert!(holds(&records[1], b"knn") && !holds(&records[2], b"knn"));
        assert!(holds(&records[3], &[b"images per second\x15".as_slice(), &310f32.to_le_bytes()].concat()));
    }
}
