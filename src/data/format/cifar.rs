//! CIFAR-10 and CIFAR-100 (Krizhevsky 2009), binary version: records of labels and 32 × 32 pixels, plane by plane.

use super::*;

const SIDE: u32 = 32;
/// Maximum size of a file of records; the largest in use has 154 MB.
const RECORDS_MAX: u64 = 1 << 30;
const PIXELS: u64 = 3 * (SIDE * SIDE) as u64;

/// One of the two sets.
pub struct Cifar {
    /// The folder in the archive.
    folder: &'static str,
    /// The file of class names.
    names: &'static str,
    train: &'static [&'static str],
    test: &'static [&'static str],
    /// Bytes of labels before the pixels; the last one is the class.
    labels: u64,
}

/// Ten classes.
pub const CIFAR10: Cifar = Cifar {
    folder: "cifar-10-batches-bin",
    names: "batches.meta.txt",
    train: &["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"],
    test: &["test_batch.bin"],
    labels: 1,
};

/// A hundred classes; their twenty groups are not used.
pub const CIFAR100: Cifar = Cifar {
    folder: "cifar-100-binary",
    names: "fine_label_names.txt",
    train: &["train.bin"],
    test: &["test.bin"],
    labels: 2,
};

impl List for Cifar {
    fn list(&self, root: &Path, split: Split) -> Result<Listing> {
        let names = one_of(root, &[self.names, &format!("{}/{}", self.folder, self.names)])?;
        let base = names.parent().context("a file has a folder")?;
        let classes = numbered(&names)?;
        let mut images = vec![];
        for file in if split == Split::Train { self.train } else { self.test } {
            self.records(root, &base.join(file), &mut images)?;
        }
        Ok(Listing { classes, images, left_out: vec![] })
    }
}

impl Cifar {
    fn records(&self, root: &Path, file: &Path, images: &mut Vec<Listed>) -> Result<()> {
        let bytes = read(file, RECORDS_MAX)?;
        let record = (self.labels + PIXELS) as usize;
        let whole = bytes.len().is_multiple_of(record);
        ensure!(whole, "{} has {} bytes, not a whole number of records of {record}", file.display(), bytes.len());
        let name = below(root, file)?;
        for (number, labels) in bytes.chunks_exact(record).enumerate() {
            let offset = (number * record) as u64 + self.labels;
            images.push(Listed {
                path: format!("{name}/{number:05}"),
                label: Label::One(u32::from(labels[self.labels as usize - 1])),
                within: Some(Within { file: name.clone(), offset, bytes: PIXELS, planes: Some((SIDE, SIDE)) }),
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::*;
    use super::*;

    fn record(labels: &[u8]) -> Vec<u8> {
        [labels.to_vec(), vec![7; PIXELS as usize]].concat()
    }

    #[test]
    fn records_are_listed_with_their_offsets() {
        let batch = [record(&[1]), record(&[0])].concat();
        let mut files: Vec<(&str, &[u8])> = CIFAR10.train.iter().map(|name| (*name, &batch[..])).collect();
        files.push(("batches.meta.txt", b"airplane\nautomobile\n\n"));
        let root = tree(&files);
        let listing = list(Format::Cifar10, Some(Split::Train), root.path()).unwrap();
        assert_eq!((listing.classes.len(), listing.images.len()), (2, 10));
        let second = &listing.images[1];
        assert_eq!((second.path.as_str(), &second.label), ("data_batch_1.bin/00001", &Label::One(0)));
        let place = Within { file: "data_batch_1.bin".into(), offset: 3074, bytes: 3072, planes: Some((32, 32)) };
        assert_eq!(second.within, Some(place));
    }

    #[test]
    fn of_two_labels_the_second_is_the_class() {
        let test = [record(&[9, 1]), record(&[9, 0])].concat();
        let files =
            [("cifar-100-binary/test.bin", &test[..]), ("cifar-100-binary/fine_label_names.txt", b"apple\nbear\n")];
        let expected = [("cifar-100-binary/test.bin/00000", "bear"), ("cifar-100-binary/test.bin/00001", "apple")];
        let expected = expected.map(|(path, class)| (path.to_owned(), class.to_owned()));
        assert_eq!(listed(Format::Cifar100, Split::Test, tree(&files).path()), expected);
    }

    #[test]
    fn truncated_files_and_unknown_labels_are_errors() {
        let error = |test: &[u8]| {
            refused(Format::Cifar10, Split::Test, &[("test_batch.bin", test), ("batches.meta.txt", b"airplane")])
        };
        assert!(error(&record(&[0])[..3000]).contains("3000 bytes, not a whole number of records of 3073"));
        assert!(error(&record(&[1])).contains("class number 1"));
        assert!(refused(Format::Cifar10, Split::Test, &[("batches.meta.txt", b"a")]).contains("test_batch.bin"));
    }
}
