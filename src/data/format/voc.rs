//! PASCAL VOC 2007, whose images show several classes.

use super::*;

/// The classes, in the order of the challenge.
pub const CLASSES: [&str; 20] = [
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
];

/// PASCAL VOC 2007 (Everingham et al. 2010), classification: `ImageSets/Main/<class>_<split>.txt`, each line an image and 1
/// (shown), −1 (not shown) or 0 (only objects marked difficult). Difficult counts as not shown, as in the code of
/// transfer papers; the challenge's own code leaves such images out.
pub struct Voc2007;

impl List for Voc2007 {
    fn list(&self, root: &Path, split: Split) -> Result<Listing> {
        let sets = one_of(root, &["ImageSets/Main", "VOC2007/ImageSets/Main", "VOCdevkit/VOC2007/ImageSets/Main"])?;
        let base = sets.ancestors().nth(2).context("the sets are two folders deep")?;
        let mut images: Vec<(String, Vec<u32>)> = vec![];
        for (class, name) in CLASSES.iter().enumerate() {
            let file = sets.join(format!("{name}_{}.txt", split.name()));
            let lines = lines(&file)?;
            if class == 0 {
                let name = |(number, line): &(usize, String)| {
                    Ok((at(&file, *number, inside(first(line)))?.to_owned(), vec![]))
                };
                images = lines.iter().map(name).collect::<Result<_>>()?;
            }
            let (here, before) = (lines.len(), images.len());
            ensure!(here == before, "{} lists {here} images, the previous class {before}", file.display());
            for ((number, line), (image, shows)) in lines.iter().zip(&mut images) {
                if at(&file, *number, shown(line, image))? {
                    shows.push(class as u32);
                }
            }
        }
        let listed = |(name, shows): (String, Vec<u32>)| {
            let path = below(root, &base.join("JPEGImages").join(format!("{name}.jpg")))?;
            Ok(Listed { path, label: Label::Several(shows), within: None })
        };
        let images = images.into_iter().map(listed).collect::<Result<_>>()?;
        Ok(Listing { classes: CLASSES.map(String::from).to_vec(), images, left_out: vec![] })
    }
}

fn first(line: &str) -> &str {
    line.split_whitespace().next().unwrap_or_default()
}

/// Whether a line of a class's file says that the class is shown; the line must be that of `image`.
fn shown(line: &str, image: &str) -> Result<bool> {
    let mut words = line.split_whitespace();
    let (name, mark) = words.next().zip(words.next()).context("a line is an image and 1, 0 or -1")?;
    ensure!(name == image, "the image is {name}, the previous class has {image} on this line");
    match mark {
        "1" => Ok(true),
        "0" | "-1" => Ok(false),
        other => bail!("the mark is '{other}'; it must be 1, 0 or -1"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::*;
    use super::*;

    /// A tree in which `lines` gives the file of each class.
    fn voc(split: &str, lines: impl Fn(&str) -> &'static str) -> Vec<(String, &'static [u8])> {
        let file = |class: &str| format!("VOCdevkit/VOC2007/ImageSets/Main/{class}_{split}.txt");
        CLASSES.iter().map(|class| (file(class), lines(class).as_bytes())).collect()
    }

    fn borrowed<'a>(files: &'a [(String, &'static [u8])]) -> Vec<(&'a str, &'a [u8])> {
        files.iter().map(|(path, bytes)| (path.as_str(), *bytes)).collect()
    }

    #[test]
    fn images_show_several_classes_and_difficult_ones_not() {
        let lines = |class: &str| match class {
            "bird" => "000005 -1\n000007  1\n000009  0\n",
            "dog" => "000005  0\n000007  1\n000009 -1\n",
            _ => "000005 -1\n000007 -1\n000009 -1\n",
        };
        let files = voc("trainval", lines);
        let root = tree(&borrowed(&files));
        let path = |name: &str| format!("VOCdevkit/VOC2007/JPEGImages/{name}.jpg");
        let expected = [(path("000005"), ""), (path("000007"), "bird+dog"), (path("000009"), "")];
        let expected = expected.map(|(path, classes)| (path, classes.to_owned()));
        assert_eq!(listed(Format::Voc2007, Split::TrainVal, root.path()), expected);
    }

    #[test]
    fn files_that_disagree_are_errors() {
        let error =
            |lines: fn(&str) -> &'static str| refused(Format::Voc2007, Split::Test, &borrowed(&voc("test", lines)));
        assert!(error(|class| if class == "cow" { "1 1\n" } else { "1 1\n2 1\n" }).contains("lists 1 images"));
        let other = error(|class| if class == "cow" { "1 1\n3 1\n" } else { "1 1\n2 1\n" });
        assert!(other.contains("cow_test.txt, line 2: the image is 3"), "{other}");
        assert!(error(|_| "1 2\n").contains("the mark is '2'"));
        assert!(error(|_| "1\n").contains("1, 0 or -1"));
        assert!(error(|_| "../../x 1\n").contains("aeroplane_test.txt, line 1: the path '../../x' leaves the folder"));
        let missing = refused(Format::Voc2007, Split::Test, &borrowed(&voc("val", |_| "1 1")));
        assert!(missing.contains("aeroplane_test.txt"), "{missing}");
    }
}
