//! Tests with damaged data sets: the files of every layout, damaged in many ways. Each must be an error that names the
//! place, or a list of images that cannot be read.

use super::{
    archive::tests::{gz, tar},
    tests::tree,
    *,
};
use crate::index;
use caco_measure::rng::Rng;

type Files = Vec<(String, Vec<u8>)>;

fn jpeg(shade: u8) -> Vec<u8> {
    let mut file = vec![];
    let pixels: Vec<u8> = (0..12 * 9 * 3).map(|i| (i as u8).wrapping_mul(shade)).collect();
    jpeg_encoder::Encoder::new(&mut file, 90).encode(&pixels, 12, 9, jpeg_encoder::ColorType::Rgb).unwrap();
    file
}

macro_rules! mat {
    ($name:literal) => {
        include_bytes!(concat!("../../../tests/formats/", $name, ".mat")).to_vec()
    };
}

/// A small undamaged set in a layout.
fn specimen(format: Format) -> Files {
    let text = |path: &str, text: &str| (path.to_owned(), text.as_bytes().to_vec());
    let images = |paths: &[&str]| -> Files { (2..).zip(paths).map(|(i, path)| (path.to_string(), jpeg(i))).collect() };
    let cifar = |labels: &[u8]| [labels.to_vec(), (0..3072).map(|i| i as u8).collect()].concat();
    let mut files = match format {
        Format::ImageFolder => vec![],
        Format::WebDataset => vec![
            ("a.tar".into(), tar(&[("1.jpg", &jpeg(3)), ("1.cls", b"0"), ("2.jpg", &jpeg(4)), ("2.cls", b"1")])),
            text("classes.txt", "cat\ndog\n"),
        ],
        Format::Cifar10 => {
            let mut files: Files =
                (1..=5).map(|i| (format!("data_batch_{i}.bin"), cifar(&[i % 2]).repeat(2))).collect();
            files.extend([("test_batch.bin".into(), cifar(&[1])), text("batches.meta.txt", "airplane\nbird\n")]);
            files
        }
        Format::Cifar100 => vec![
            ("train.bin".into(), cifar(&[0, 1])),
            ("test.bin".into(), cifar(&[1, 0])),
            text("fine_label_names.txt", "apple\nbear\n"),
        ],
        Format::Food101 => vec![
            text("meta/train.json", r#"{"pie": ["pie/1", "pie/2"], "soup": ["soup/3"]}"#),
            text("meta/test.json", r#"{"pie": ["pie/4"], "soup": []}"#),
        ],
        Format::Sun397 => vec![
            text("ClassName.txt", "/a/abbey\n/b/bar\n"),
            text("Training_01.txt", "/a/abbey/1.jpg\n/b/bar/2.jpg\n"),
            text("Testing_01.txt", "/b/bar/3.jpg\n"),
        ],
        Format::StanfordCars => vec![
            ("devkit/cars_meta.mat".into(), mat!("cars_meta")),
            ("devkit/cars_train_annos.mat".into(), mat!("cars_annos")),
            ("cars_test_annos_withlabels.mat".into(), mat!("cars_annos")),
        ],
        Format::FgvcAircraft => vec![
            text("data/variants.txt", "707-320\nDash 8 300\n"),
            text("data/images_variant_train.txt", "1 707-320\n"),
            text("data/images_variant_val.txt", "2 Dash 8 300\n"),
            text("data/images_variant_trainval.txt", "1 707-320\n2 Dash 8 300\n"),
            text("data/images_variant_test.txt", "3 707-320\n"),
        ],
        Format::Voc2007 => vec![],
        Format::Dtd => vec![
            text("labels/train1.txt", "banded/1.jpg\ndotted/2.jpg\n"),
            text("labels/val1.txt", "banded/3.jpg\n"),
            text("labels/test1.txt", "dotted/4.jpg\n"),
        ],
        Format::OxfordPets => vec![
            text("annotations/trainval.txt", "Abyssinian_1 1 1 1\nbeagle_2 2 2 1\n"),
            text("annotations/test.txt", "Abyssinian_3 1 1 1\nbeagle_4 2 2 1\n"),
        ],
        Format::Caltech101 => vec![],
        Format::Flowers102 => {
            vec![("imagelabels.mat".into(), mat!("imagelabels")), ("setid.mat".into(), mat!("setid"))]
        }
        Format::ImageNet => {
            let synset = |name: &str, shade| {
                tar(&[(&format!("{name}_1.JPEG"), &jpeg(shade)), (&format!("{name}_2.JPEG"), &jpeg(9))])
            };
            let (a, b) = (synset("n01440764", 3), synset("n01443537", 4));
            let base = "ILSVRC2012_devkit_t12/data";
            let devkit = tar(&[
                (&format!("{base}/meta.mat"), &mat!("meta")),
                (&format!("{base}/ILSVRC2012_validation_ground_truth.txt"), b"1\n2\n"),
            ]);
            vec![
                ("ILSVRC2012_img_train.tar".into(), tar(&[("n01440764.tar", &a), ("n01443537.tar", &b)])),
                ("ILSVRC2012_img_val.tar".into(), tar(&[("v_1.JPEG", &jpeg(5)), ("v_2.JPEG", &jpeg(6))])),
                ("ILSVRC2012_devkit_t12.tar.gz".into(), gz(&devkit)),
            ]
        }
    };
    files.extend(match format {
        Format::ImageFolder => images(&["cat/1.jpg", "dog/2.jpg", "dog/3.jpg"]),
        Format::Food101 => images(&["images/pie/1.jpg", "images/pie/2.jpg", "images/soup/3.jpg", "images/pie/4.jpg"]),
        Format::Sun397 => images(&["a/abbey/1.jpg", "b/bar/2.jpg", "b/bar/3.jpg"]),
        Format::StanfordCars => {
            let name = |folder: &str, i: u32| format!("{folder}/{i:05}.jpg");
            let names: Vec<String> =
                ["cars_train", "cars_test"].iter().flat_map(|f| (1..4).map(|i| name(f, i))).collect();
            images(&names.iter().map(String::as_str).collect::<Vec<_>>())
        }
        Format::FgvcAircraft => images(&["data/images/1.jpg", "data/images/2.jpg", "data/images/3.jpg"]),
        Format::Voc2007 => images(&["JPEGImages/000001.jpg", "JPEGImages/000002.jpg"]),
        Format::Dtd => {
            images(&["images/banded/1.jpg", "images/dotted/2.jpg", "images/banded/3.jpg", "images/dotted/4.jpg"])
        }
        Format::OxfordPets => images(&[
            "images/Abyssinian_1.jpg",
            "images/beagle_2.jpg",
            "images/Abyssinian_3.jpg",
            "images/beagle_4.jpg",
        ]),
        Format::Caltech101 => {
            let names: Vec<String> = (1..33).map(|i| format!("101_ObjectCategories/ant/image_{i:04}.jpg")).collect();
            images(&names.iter().map(String::as_str).collect::<Vec<_>>())
        }
        Format::Flowers102 => {
            let names: Vec<String> = (1..6).map(|i| format!("jpg/image_{i:05}.jpg")).collect();
            images(&names.iter().map(String::as_str).collect::<Vec<_>>())
        }
        _ => vec![],
    });
    if format == Format::Voc2007 {
        for class in voc::CLASSES {
            for split in ["train", "val", "trainval", "test"] {
                let lines = if class == "dog" { "000001 1\n000002 -1\n" } else { "000001 0\n000002 1\n" };
                files.push(text(&format!("ImageSets/Main/{class}_{split}.txt"), lines));
            }
        }
    }
    files
}

/// Damages one of the files and returns how.
fn damage(files: &mut Files, rng: &mut Rng) -> String {
    let below = |rng: &mut Rng, n: usize| rng.below(n.max(1) as u64) as usize;
    let which = below(rng, files.len());
    let other = files[below(rng, files.len())].1.clone();
    let (name, bytes) = &mut files[which];
    let name = name.clone();
    let length = bytes.len();
    let place = below(rng, length);
    let how = match rng.below(8) {
        0 => {
            bytes.truncate(place);
            "cut"
        }
        1 => {
            (0..3).for_each(|_| {
                if let Some(byte) = bytes.get_mut(below(rng, length)) {
                    *byte ^= 1 << rng.below(8);
                }
            });
            "with flipped bits"
        }
        2 => {
            *bytes = other;
            "with another file's content"
        }
        3 => {
            bytes.splice(place..place, *b"../../../etc/passwd");
            "with a path that leaves the folder"
        }
        4 => {
            let end = (place + 16).min(length);
            bytes.splice(place..end, (0..16).map(|_| rng.next_u64() as u8));
            "with noise in it"
        }
        5 => {
            bytes.clear();
            "empty"
        }
        6 => {
            let end = (place + 64).min(length);
            bytes.drain(place..end);
            "with a gap"
        }
        _ => {
            files.remove(which);
            return format!("{name} missing");
        }
    };
    format!("{name} {how}")
}

const FORMATS: [Format; 14] = [
    Format::ImageFolder,
    Format::WebDataset,
    Format::Cifar10,
    Format::Cifar100,
    Format::Food101,
    Format::Sun397,
    Format::StanfordCars,
    Format::FgvcAircraft,
    Format::Voc2007,
    Format::Dtd,
    Format::OxfordPets,
    Format::Caltech101,
    Format::Flowers102,
    Format::ImageNet,
];

fn splits(format: Format) -> Vec<Option<Split>> {
    match format.splits() {
        [] => vec![None],
        splits => splits.iter().copied().map(Some).collect(),
    }
}

fn write(files: &Files) -> tempfile::TempDir {
    tree(&files.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice())).collect::<Vec<_>>())
}

#[test]
fn undamaged_sets_are_read_without_errors() {
    for format in FORMATS {
        let root = write(&specimen(format));
        for split in splits(format) {
            let listing = list(format, split, root.path()).unwrap();
            let (set, unreadable) = index::build(root.path(), listing, |_, _| ());
            assert!(unreadable.is_empty() && !set.images.is_empty(), "{format:?} {split:?}: {unreadable:?}");
            let index = root.path().join("index.jsonl");
            set.save(&index, &[]).unwrap();
            assert_eq!(crate::Dataset::open(&index, root.path()).unwrap(), set);
        }
    }
}

#[test]
fn damaged_sets_are_errors_naming_the_place_or_lists_of_unreadable_images() {
    const EACH: u64 = 60;
    let (mut errors, mut skips, mut harmless) = (0, 0, 0);
    for format in FORMATS {
        for case in 0..EACH {
            let mut files = specimen(format);
            let mut rng = Rng::new(0, "damage", format as u64, case);
            let how = damage(&mut files, &mut rng);
            let root = write(&files);
            for split in splits(format) {
                match list(format, split, root.path()) {
                    Err(error) => {
                        let message = format!("{error:#}");
                        let names = |(name, _): &(String, Vec<u8>)| message.contains(name.rsplit('/').next().unwrap());
                        let place = message.contains(&*root.path().to_string_lossy()) || files.iter().any(names);
                        assert!(place, "{format:?}, {how}: the error does not name the place: {message}");
                        errors += 1;
                    }
                    Ok(listing) => {
                        let unreadable = index::build(root.path(), listing, |_, _| ()).1;
                        assert!(unreadable.iter().all(|file| !file.unreadable.is_empty()), "{how}");
                        if unreadable.is_empty() { harmless += 1 } else { skips += 1 }
                    }
                }
            }
        }
    }
    let damaged = EACH as usize * FORMATS.len();
    println!("{damaged} damaged sets: {errors} errors, {skips} lists of unreadable images, {harmless} unharmed splits");
    assert!(damaged >= 500 && errors > 300 && skips > 100, "{errors} errors, {skips} lists, {harmless} unharmed");
}
