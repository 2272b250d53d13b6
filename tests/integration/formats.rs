//! Data sets in their published formats, read by stages.

use crate::project::Project;
use caco_data::Dataset;
use std::{fs, path::Path};

const NETWORK: &str = "model: (arch: ResNet18, width: 4, stem: Cifar, hidden: 8, dim: 4)";

fn write(project: &Project, file: &str, bytes: &[u8]) {
    let path = project.path().join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// An image of stripes.
fn jpeg(width: u16, height: u16, stripe: usize) -> Vec<u8> {
    let side = usize::from(width);
    let pixel = |i: usize| if (i % side + i / side).is_multiple_of(stripe) { [250, 10, 90] } else { [20, 200, 30] };
    let pixels: Vec<u8> = (0..side * usize::from(height)).flat_map(pixel).collect();
    let mut file = vec![];
    jpeg_encoder::Encoder::new(&mut file, 90).encode(&pixels, width, height, jpeg_encoder::ColorType::Rgb).unwrap();
    file
}

/// CIFAR-10 with two images per file, in `cifar`.
fn cifar(project: &Project) {
    let record = |label: u8| {
        let shade = |i: usize| (i / 12) as u8 ^ label.wrapping_mul(37);
        [vec![label], (0..3072).map(shade).collect::<Vec<u8>>()].concat()
    };
    let names = ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"];
    for name in names {
        write(project, &format!("cifar/{name}.bin"), &[record(0), record(1)].concat());
    }
    write(project, "cifar/batches.meta.txt", b"airplane\nautomobile\n");
}

fn features(project: &Project, stage: &str) -> Vec<u8> {
    let file = format!("{stage}.safetensors");
    project.ok(&["get", stage, &file]);
    fs::read(project.path().join(file)).unwrap()
}

#[test]
fn a_data_set_is_read_in_place_and_packed() {
    let project = Project::with(&format!(
        r#"(stages: {{
            "train": index(root: Path("cifar"), format: Cifar10, split: Train),
            "packed": pack(index: "train", short: 32, encoding: Raw),
            "small": pack(index: "packed", short: 16),
            "untrained": init_encoder({NETWORK}),
            "direct": features(encoder: "untrained", index: "train", resize: 32, crop: 32),
            "from-packed": features(encoder: "untrained", index: "packed", resize: 32, crop: 32),
            "from-small": features(encoder: "untrained", index: "small", resize: 16, crop: 16),
        }})"#
    ));
    cifar(&project);
    assert_eq!(project.run(&[]).len(), 7);
    assert!(project.run(&[]).is_empty());
    let tensors = |bytes: &[u8]| {
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        bytes[8 + header..].to_vec()
    };
    let direct = tensors(&features(&project, "direct"));
    assert_eq!(direct, tensors(&features(&project, "from-packed")));
    assert_ne!(direct, tensors(&features(&project, "from-small")));

    // A changed pixel reruns what reads it.
    let mut batch = fs::read(project.path().join("cifar/data_batch_3.bin")).unwrap();
    batch[100] ^= 0xff;
    fs::write(project.path().join("cifar/data_batch_3.bin"), batch).unwrap();
    assert_eq!(project.run(&[]), ["direct", "from-packed", "from-small", "packed", "small", "train"]);
    // A file in no split only reruns the index, which gives the same bytes.
    write(&project, "cifar/readme.html", b"hello");
    assert_eq!(project.run(&[]), ["train"]);
}

#[test]
fn a_set_says_which_splits_it_has_and_what_is_wrong_with_its_files() {
    let project = Project::with(r#"(stages: {"train": index(root: Path("cifar"), format: Cifar10, split: Val)})"#);
    cifar(&project);
    insta::assert_snapshot!(project.caco(&["check", "p.ron"]).err, @r#"
    error: stage 'train': split is Val; Cifar10 has the splits Train, Test; name one
     --> p.ron:1:71
      |
    1 | (stages: {"train": index(root: Path("cifar"), format: Cifar10, split: Val)})
      |                                                                       ^^^
    "#);
    project.edit("Val", "Test");
    write(&project, "cifar/test_batch.bin", &[1; 3000]);
    let failed = project.caco(&["run", "p.ron"]);
    assert_eq!(failed.code, 1);
    let message = "test_batch.bin has 3000 bytes, not a whole number of records of 3073";
    assert!(failed.err.contains(message), "{}", failed.err);
}

/// ImageNet in small: six classes.
fn imagenet(project: &Project, train: usize, val: usize) {
    for (split, count) in [("train", train), ("val", val)] {
        for class in 0..6 {
            for image in 0..count {
                let file = format!("imagenet/{split}/n0000000{class}/{image}.JPEG");
                write(project, &file, &jpeg(90 + 3 * image as u16, 70, 2 + class + image));
            }
        }
    }
}

#[test]
fn the_smoke_profile_runs_every_stage_on_any_tree() {
    let project = Project::new();
    imagenet(&project, 14, 3);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/imagenet.ron");
    project.write("p.ron", &fs::read_to_string(file).unwrap());
    let mut run = project.command(&["run", "p.ron", "--profile", "smoke", "--json"]);
    let run = crate::project::printed(run.env("IMAGENET", "imagenet").output().unwrap());
    assert_eq!(run.code, 0, "{}", run.err);
    let ran = crate::project::ran(&serde_json::from_str(&run.out).unwrap());
    for stage in ["pretrain/800ep-multicrop", "linear/200ep-1024", "transfer/voc2007/800ep-4096", "comparison"] {
        let shared = run.err.contains(stage);
        assert!(shared || ran.contains(&stage.to_string()), "{stage} is not in {ran:?}");
    }
}

#[test]
fn archives_of_imagenet_give_the_images_of_its_folders() {
    let project = Project::with(
        r#"(stages: {
            "folders": index(root: Path("imagenet"), format: ImageNet, split: Train),
            "archives": index(root: Path("archives"), format: ImageNet, split: Train),
        })"#,
    );
    imagenet(&project, 3, 1);
    let tar = |entries: Vec<(String, Vec<u8>)>| {
        let mut archive = tar::Builder::new(vec![]);
        for (name, bytes) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            archive.append_data(&mut header, name, &bytes[..]).unwrap();
        }
        archive.into_inner().unwrap()
    };
    let synset = |class: usize| {
        let path = |image| project.path().join(format!("imagenet/train/n0000000{class}/{image}.JPEG"));
        let name = |image| format!("n0000000{class}_{image}.JPEG");
        let images = (0..3).map(|image| (name(image), fs::read(path(image)).unwrap())).collect();
        (format!("n0000000{class}.tar"), tar(images))
    };
    let archive = tar((0..6).rev().map(synset).collect());
    write(&project, "archives/ILSVRC2012_img_train.tar", &archive);
    project.run(&[]);
    let read = |stage: &str| {
        let out = format!("{stage}.jsonl");
        project.ok(&["get", stage, &out]);
        let set = Dataset::open(&project.path().join(out), project.path()).unwrap();
        let images = set.images.into_iter().map(|i| (i.blake3, i.label, i.size)).collect::<Vec<_>>();
        (set.classes, images)
    };
    assert_eq!(read("folders"), read("archives"));
}

#[test]
fn a_set_of_the_catalogue_is_counted_and_its_bad_files_named() {
    let project = Project::new();
    project.write(
        "sets.ron",
        r#"[(
            name: "toys", title: "Toys", source: "http://127.0.0.1:1/", licence: "CC0", format: Food101, root: "toys",
            images: {Train: 2, Test: 1}, classes: 2, archives: [],
        )]"#,
    );
    project.write("data/toys/toys/meta/train.json", r#"{"pie": ["pie/1"], "soup": ["soup/2"]}"#);
    project.write("data/toys/toys/meta/test.json", r#"{"pie": ["pie/3"], "soup": []}"#);
    for name in ["pie/1", "soup/2", "pie/3"] {
        write(&project, &format!("data/toys/toys/images/{name}.jpg"), &jpeg(20, 20, 3));
    }
    let check = ["data", "check", "toys", "--catalogue", "sets.ron", "--decode"];
    let right = project.ok(&check);
    assert_eq!(right.out, "train    2 images of 2 classes: right\ntest     1 images of 2 classes: right\n");
    assert!(right.err.contains("decoding the images of ") && right.err.contains(", split test\n"), "{}", right.err);
    write(&project, "data/toys/toys/images/soup/2.jpg", &jpeg(20, 20, 3)[..300]);
    project.write("data/toys/toys/meta/test.json", r#"{"pie": ["pie/3", "pie/1"], "soup": []}"#);
    let wrong = project.caco(&check);
    assert_eq!(wrong.code, 1);
    assert!(
        wrong.out.contains("train    2 images of 2 classes: 1 cannot be read\n  images/soup/2.jpg: "),
        "{}",
        wrong.out
    );
    assert!(wrong.out.contains("test     2 images of 2 classes: there should be 1 of 2\n"), "{}", wrong.out);
    // A split that cannot be listed does not end the check.
    project.write("data/toys/toys/meta/train.json", "{");
    let half = project.caco(&check);
    assert!(half.code == 1 && half.out.contains("train    cannot look at split train of toys"), "{}", half.out);
    assert!(half.out.contains("test     2 images of 2 classes"), "{}", half.out);
    let absent = project.caco(&["data", "check", "toys", "--catalogue", "sets.ron", "--at", "elsewhere"]);
    assert!(absent.err.contains("elsewhere is not a folder\nhelp: `caco data fetch toys`"), "{}", absent.err);
}

#[test]
fn the_pixels_of_a_file_have_a_digest() {
    let project = Project::new();
    write(&project, "x.ppm", b"P6 1 2 255\nabcdef");
    let expected = "1 x 2  RGB  sha256 bef57ec7f53a6d40beb640a780a639c83bc29ac8a9816f1fc6c5c6dcd93c4721\n";
    assert_eq!(project.ok(&["data", "pixels", "x.ppm"]).out, expected);
    write(&project, "x.ppm", b"text");
    let wrong = project.caco(&["data", "pixels", "x.ppm"]);
    assert!(wrong.code == 1 && wrong.err.contains("cannot decode x.ppm"), "{}", wrong.err);
}

#[test]
fn a_contact_sheet_shows_a_stage_or_a_folder() {
    let project = Project::with(
        r#"(stages: {
            "images": index(root: Path("pictures")),
            "packed": pack(index: "images", short: 10),
        })"#,
    );
    for name in ["cat/1", "cat/2", "dog/3"] {
        write(&project, &format!("pictures/{name}.jpg"), &jpeg(40, 20, 3));
    }
    project.run(&[]);
    for (index, size) in [("images", "40 x 20"), ("packed", "20 x 10"), ("pictures", "40 x 20")] {
        let out = format!("{index}.png");
        let shown = project.ok(&["data", "show", index, "-n", "2", "--out", &out, "--views", "SingleCrop(size: 16)"]);
        assert_eq!(shown.out.lines().count(), 2, "{}", shown.out);
        assert!(shown.out.contains(size) && shown.out.contains("dog/3.jpg"), "{}", shown.out);
        assert!(fs::read(project.path().join(out)).unwrap().starts_with(b"\x89PNG"));
    }
    let wrong = project.caco(&["data", "show", "images", "--views", "SingleCrop(size: 4)"]);
    assert!(wrong.code == 1 && wrong.err.contains("--views: "), "{}", wrong.err);
    let unknown = project.caco(&["data", "show", "imagse"]);
    assert!(unknown.err.contains("images"), "{}", unknown.err);
}

#[test]
fn other_files_may_be_added_to_a_folder_of_images() {
    let project = Project::with(
        r#"(stages: {
            "images": index(root: Path("pictures")),
            "packed": pack(index: "images", short: 10),
        })"#,
    );
    for name in ["cat/1", "dog/2"] {
        write(&project, &format!("pictures/{name}.jpg"), &jpeg(40, 20, 3));
    }
    project.run(&[]);
    project.write("pictures/README", "where they are from");
    assert_eq!(project.run(&[]), ["images"], "the index comes out the same");
    assert!(!project.ok(&["audit", "p.ron"]).out.contains('✗'));
    let packed = project.json(&["show", "packed", "--json"])["result"]["key"].as_str().unwrap().to_string();
    let grown = project.json(&["audit", &packed, "--json"]).to_string();
    assert!(grown.contains("has changed, but not the files that were read"), "{grown}");
    // An additional image would have been read.
    write(&project, "pictures/cat/3.jpg", &jpeg(40, 20, 5));
    assert_eq!(project.caco(&["audit", &packed]).code, 1);
    fs::remove_file(project.path().join("pictures/cat/3.jpg")).unwrap();
    assert_eq!(project.caco(&["audit", &packed]).code, 0);
    write(&project, "pictures/cat/1.jpg", &jpeg(40, 20, 4));
    let changed = project.caco(&["audit", &packed]);
    assert!(changed.code == 1 && changed.out.contains("now holds"), "{}", changed.out);
}
