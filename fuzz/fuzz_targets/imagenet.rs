#![no_main]
//! ImageNet's nested archives and its devkit.

mod tree;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let root = tempfile::tempdir().expect("a folder can be created");
    let names = ["ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz"];
    tree::write(root.path(), &names, bytes);
    tree::list(caco_kinds::Format::ImageNet, root.path());
});
