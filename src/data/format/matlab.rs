//! Sets whose annotations are MAT-files: Stanford Cars, Flowers-102.

use super::*;
use crate::mat::{self, Value};
use std::collections::BTreeMap;

fn variables(file: &Path) -> Result<BTreeMap<String, Value>> {
    mat::parse(&read(file, ANNOTATIONS_MAX)?).with_context(|| format!("cannot read {}", file.display()))
}

/// Stanford Cars (Krause et al. 2013): struct arrays with the image's name and its class from 1.
pub struct StanfordCars;

impl List for StanfordCars {
    fn list(&self, root: &Path, split: Split) -> Result<Listing> {
        // A copy on Kaggle has neither the devkit nor its layout.
        let other = root.join("cars_annos.mat");
        let hint = || format!("{} is of another copy; put the devkit beside it (cars_devkit.tgz)", other.display());
        let find = |names: &[&str]| match (one_of(root, names), other.exists()) {
            (Err(error), true) => Err(error.context(hint())),
            (found, _) => found,
        };
        let meta = find(&["devkit/cars_meta.mat", "cars_meta.mat", "stanford_cars/devkit/cars_meta.mat"])?;
        let (file, folder) = if split == Split::Train {
            let annotations =
                ["devkit/cars_train_annos.mat", "cars_train_annos.mat", "stanford_cars/devkit/cars_train_annos.mat"];
            (find(&annotations)?, find(&["cars_train", "stanford_cars/cars_train"])?)
        } else {
            // The devkit's own annotations of the test images have no classes.
            let name = "cars_test_annos_withlabels.mat";
            let places =
                ["", "devkit/", "stanford_cars/", "stanford_cars/devkit/"].map(|place| format!("{place}{name}"));
            (find(&places.each_ref().map(|s| &**s))?, find(&["cars_test", "stanford_cars/cars_test"])?)
        };
        let naming = |file: &Path| format!("cannot read {}", file.display());
        let classes = class_names(&variables(&meta)?).with_context(|| naming(&meta))?;
        let annotations = variables(&file)?;
        let cars =
            mat::variable(&annotations, "annotations").and_then(Value::structs).with_context(|| naming(&file))?;
        let listed = |(number, car): (usize, &mat::Fields)| {
            let (name, class) = car_of(car).with_context(|| format!("{}, annotation {number}", file.display()))?;
            Ok(image(below(root, &folder.join(name))?, class))
        };
        let images = (1..).zip(cars).map(listed).collect::<Result<Vec<_>>>()?;
        not_nested(root, &folder, &images)?;
        Ok(Listing { classes, images, left_out: vec![] })
    }
}

/// Fails if the images are in a folder of the same name inside `folder`, where a copy on Kaggle has them.
fn not_nested(root: &Path, folder: &Path, images: &[Listed]) -> Result<()> {
    let inner = folder.join(folder.file_name().unwrap_or_default());
    let missing = images.first().is_some_and(|image| !root.join(&image.path).exists());
    ensure!(
        !(missing && inner.is_dir()),
        "the images are expected in {}, not in {}; move them one folder up",
        folder.display(),
        inner.display()
    );
    Ok(())
}

fn class_names(meta: &BTreeMap<String, Value>) -> Result<Vec<String>> {
    let cells = mat::variable(meta, "class_names")?.cells()?;
    cells.iter().map(|name| Ok(name.text().context("a class name")?.to_owned())).collect()
}

fn car_of(annotation: &mat::Fields) -> Result<(&str, u32)> {
    let name = inside(mat::field(annotation, "fname")?.text().context("its fname")?)?;
    Ok((name, from_one(mat::field(annotation, "class")?.whole().context("its class")?)?))
}

fn from_one(class: u32) -> Result<u32> {
    class.checked_sub(1).context("the class is 0; classes are numbered from 1")
}

/// Oxford Flowers-102 (Nilsback and Zisserman 2008): `imagelabels.mat`, `setid.mat`, `jpg/image_<number>.jpg`.
pub struct Flowers102;

impl List for Flowers102 {
    fn list(&self, root: &Path, split: Split) -> Result<Listing> {
        let find = |name: &str| one_of(root, &[name, &format!("flowers-102/{name}")]);
        let (labels_file, sets_file) = (find("imagelabels.mat")?, find("setid.mat")?);
        let folder = find("jpg")?;
        let labels = mat::variable(&variables(&labels_file)?, "labels").and_then(Value::wholes);
        let labels = labels.with_context(|| format!("'labels' of {}", labels_file.display()))?;
        let sets = variables(&sets_file)?;
        let parts: &[&str] = match split {
            Split::Train => &["trnid"],
            Split::Val => &["valid"],
            Split::TrainVal => &["trnid", "valid"],
            Split::Test => &["tstid"],
        };
        let mut images = vec![];
        for part in parts {
            let naming = || format!("'{part}' of {}", sets_file.display());
            for number in mat::variable(&sets, part).and_then(Value::wholes).with_context(naming)? {
                let label = (number as usize).checked_sub(1).and_then(|at| labels.get(at));
                let beyond = || format!("image {number} is not one of the {} that have labels", labels.len());
                let class = from_one(*label.with_context(beyond).with_context(naming)?)?;
                images.push(image(below(root, &folder.join(format!("image_{number:05}.jpg")))?, class));
            }
        }
        Ok(Listing { classes: FLOWERS.map(String::from).to_vec(), images, left_out: vec![] })
    }
}

/// The names of the flowers, which the annotation files do not contain (from the categories page of the data set, in
/// label order).
const FLOWERS: [&str; 102] = [
    "pink primrose",
    "hard-leaved pocket orchid",
    "canterbury bells",
    "sweet pea",
    "english marigold",
    "tiger lily",
    "moon orchid",
    "bird of paradise",
    "monkshood",
    "globe thistle",
    "snapdragon",
    "colt's foot",
    "king protea",
    "spear thistle",
    "yellow iris",
    "globe-flower",
    "purple coneflower",
    "peruvian lily",
    "balloon flower",
    "giant white arum lily",
    "fire lily",
    "pincushion flower",
    "fritillary",
    "red ginger",
    "grape hyacinth",
    "corn poppy",
    "prince of wales feathers",
    "stemless gentian",
    "artichoke",
    "sweet william",
    "carnation",
    "garden phlox",
    "love in the mist",
    "mexican aster",
    "alpine sea holly",
    "ruby-lipped cattleya",
    "cape flower",
    "great masterwort",
    "siam tulip",
    "lenten rose",
    "barbeton daisy",
    "daffodil",
    "sword lily",
    "poinsettia",
    "bolero deep blue",
    "wallflower",
    "marigold",
    "buttercup",
    "oxeye daisy",
    "common dandelion",
    "petunia",
    "wild pansy",
    "primula",
    "sunflower",
    "pelargonium",
    "bishop of llandaff",
    "gaura",
    "geranium",
    "orange dahlia",
    "pink-yellow dahlia",
    "cautleya spicata",
    "japanese anemone",
    "black-eyed susan",
    "silverbush",
    "californian poppy",
    "osteospermum",
    "spring crocus",
    "bearded iris",
    "windflower",
    "tree poppy",
    "gazania",
    "azalea",
    "water lily",
    "rose",
    "thorn apple",
    "morning glory",
    "passion flower",
    "lotus",
    "toad lily",
    "anthurium",
    "frangipani",
    "clematis",
    "hibiscus",
    "columbine",
    "desert-rose",
    "tree mallow",
    "magnolia",
    "cyclamen",
    "watercress",
    "canna lily",
    "hippeastrum",
    "bee balm",
    "ball moss",
    "foxglove",
    "bougainvillea",
    "camellia",
    "mallow",
    "mexican petunia",
    "bromelia",
    "blanket flower",
    "trumpet creeper",
    "blackberry lily",
];

#[cfg(test)]
mod tests {
    use super::super::tests::*;
    use super::*;

    // Written by SciPy; see tests/formats/README.md.
    const META: &[u8] = include_bytes!("../../../tests/formats/cars_meta.mat");
    const CARS: &[u8] = include_bytes!("../../../tests/formats/cars_annos.mat");
    const LABELS: &[u8] = include_bytes!("../../../tests/formats/imagelabels.mat");
    const SETS: &[u8] = include_bytes!("../../../tests/formats/setid.mat");

    #[test]
    fn cars() {
        let root = tree(&[
            ("devkit/cars_meta.mat", META),
            ("devkit/cars_train_annos.mat", CARS),
            ("cars_test_annos_withlabels.mat", CARS),
            ("cars_train/x", b""),
            ("cars_test/x", b""),
        ]);
        let expected = [
            ("00001.jpg", "Dodge Ram 1500"),
            ("00002.jpg", "AM General Hummer SUV 2000"),
            ("00003.jpg", "Dodge Ram 1500"),
        ];
        let at = |folder: &str| expected.map(|(name, class)| (format!("{folder}/{name}"), class.to_owned()));
        assert_eq!(listed(Format::StanfordCars, Split::Train, root.path()), at("cars_train"));
        assert_eq!(listed(Format::StanfordCars, Split::Test, root.path()), at("cars_test"));
        let error = |meta: &[u8], cars: &[u8]| {
            let files = [("cars_meta.mat", meta), ("cars_train_annos.mat", cars), ("cars_train/x", b"")];
            refused(Format::StanfordCars, Split::Train, &files)
        };
        let kaggle = [
            ("devkit/cars_meta.mat", META),
            ("devkit/cars_train_annos.mat", CARS),
            ("cars_train/cars_train/00001.jpg", b""),
        ];
        let nested = refused(Format::StanfordCars, Split::Train, &kaggle);
        assert!(nested.contains("not in ") && nested.contains("move them one folder up"), "{nested}");
        let other = refused(Format::StanfordCars, Split::Train, &[("cars_annos.mat", META)]);
        assert!(other.contains("put the devkit beside it") && other.contains("devkit/cars_meta.mat"), "{other}");
        assert!(error(META, META).contains("there is no variable 'annotations'"));
        assert!(error(CARS, CARS).contains("there is no variable 'class_names'"));
        assert!(error(META, &CARS[..300]).contains("cars_train_annos.mat"));
    }

    #[test]
    fn flowers() {
        let root = tree(&[("imagelabels.mat", LABELS), ("setid.mat", SETS), ("jpg/x", b"")]);
        let names = |split| listed(Format::Flowers102, split, root.path());
        let one = |number: u32, name: &str| (format!("jpg/image_{number:05}.jpg"), name.to_owned());
        assert_eq!(names(Split::Train), [one(1, "passion flower"), one(5, "blackberry lily")]);
        assert_eq!(names(Split::Val), [one(2, "pink primrose")]);
        assert_eq!(names(Split::TrainVal).len(), 3);
        assert_eq!(names(Split::Test), [one(3, "hard-leaved pocket orchid"), one(4, "pink primrose")]);
        let files = [("imagelabels.mat", SETS), ("setid.mat", SETS), ("jpg/x", &b""[..])];
        assert!(refused(Format::Flowers102, Split::Train, &files).contains("there is no variable 'labels'"));
        let files = [("imagelabels.mat", LABELS), ("setid.mat", LABELS), ("jpg/x", &b""[..])];
        assert!(refused(Format::Flowers102, Split::Train, &files).contains("there is no variable 'trnid'"));
    }
}
