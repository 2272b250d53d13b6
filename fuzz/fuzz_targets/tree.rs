//! Creates a folder of files from the fuzzer's bytes, and checks the invariants of its listing.

use caco_data::{Raster, format::{self, Label}, reader::Reader};
use caco_kinds::Format;
use std::{fs, path::Path};

/// Separates the contents of files in the fuzzer's bytes.
pub const BREAK: &[u8] = b"\n====\n";

/// Writes the files `names`, each with its part of the bytes.
pub fn write(root: &Path, names: &[&str], mut bytes: &[u8]) {
    for name in names {
        let end = bytes.windows(BREAK.len()).position(|window| window == BREAK);
        let (content, rest) = end.map_or((bytes, &[][..]), |end| (&bytes[..end], &bytes[end + BREAK.len()..]));
        let path = root.join(name);
        fs::create_dir_all(path.parent().expect("a file has a folder")).expect("a folder can be created");
        fs::write(path, content).expect("a file can be written");
        bytes = rest;
    }
}

/// Lists every split. Every listed image must have an existing class and be below the root; reading it must yield an
/// image or an error.
pub fn list(format: Format, root: &Path) {
    let splits = format.splits().iter().copied().map(Some);
    for split in splits.chain(format.splits().is_empty().then_some(None)) {
        let Ok(listing) = format::list(format, split, root) else { continue };
        let (mut reader, mut raster) = (Reader::default(), Raster::default());
        for image in &listing.images {
            let known = |class: &u32| (*class as usize) < listing.classes.len();
            assert!(match &image.label {
                Label::One(class) => known(class),
                Label::Several(classes) => classes.iter().all(known),
            });
            let file = image.within.as_ref().map_or(&image.path, |within| &within.file);
            assert!(!file.starts_with('/') && !file.split('/').any(|part| part == ".."), "{file} leaves the folder");
            if reader.read(root, &image.path, image.within.as_ref()).is_ok() {
                let _ = reader.decode(image.within.as_ref(), &mut raster);
            }
        }
    }
}
