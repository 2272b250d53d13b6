#![no_main]
//! Annotation files in text and MATLAB formats: the first byte selects the data set.

mod tree;

use caco_kinds::Format;

const SETS: [(Format, &[&str]); 10] = [
    (Format::Food101, &["meta/train.json", "meta/test.json"]),
    (Format::Sun397, &["ClassName.txt", "Training_01.txt", "Testing_01.txt", "a/x"]),
    (Format::FgvcAircraft, &["data/variants.txt", "data/images_variant_train.txt"]),
    (Format::Dtd, &["labels/train1.txt", "labels/val1.txt", "labels/test1.txt"]),
    (Format::OxfordPets, &["annotations/trainval.txt", "annotations/test.txt"]),
    (Format::StanfordCars, &["cars_meta.mat", "cars_train_annos.mat", "cars_train/x"]),
    (Format::Flowers102, &["imagelabels.mat", "setid.mat", "jpg/x"]),
    (Format::Cifar10, &["batches.meta.txt", "test_batch.bin"]),
    (Format::Cifar100, &["fine_label_names.txt", "test.bin"]),
    (Format::Voc2007, VOC),
];

const VOC: &[&str] = &[
    "ImageSets/Main/aeroplane_test.txt",
    "ImageSets/Main/bicycle_test.txt",
    "ImageSets/Main/bird_test.txt",
    "ImageSets/Main/boat_test.txt",
    "ImageSets/Main/bottle_test.txt",
    "ImageSets/Main/bus_test.txt",
    "ImageSets/Main/car_test.txt",
    "ImageSets/Main/cat_test.txt",
    "ImageSets/Main/chair_test.txt",
    "ImageSets/Main/cow_test.txt",
    "ImageSets/Main/diningtable_test.txt",
    "ImageSets/Main/dog_test.txt",
    "ImageSets/Main/horse_test.txt",
    "ImageSets/Main/motorbike_test.txt",
    "ImageSets/Main/person_test.txt",
    "ImageSets/Main/pottedplant_test.txt",
    "ImageSets/Main/sheep_test.txt",
    "ImageSets/Main/sofa_test.txt",
    "ImageSets/Main/train_test.txt",
    "ImageSets/Main/tvmonitor_test.txt",
];

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    let (format, names) = SETS[usize::from(*choice) % SETS.len()];
    let root = tempfile::tempdir().expect("a folder can be created");
    tree::write(root.path(), names, bytes);
    tree::list(format, root.path());
});
