//! Files written by `torch.save`, and malicious files: each of the latter must be an error that says why.

use super::*;
use crate::tensors::Tensors;
use std::{fs, path::PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/reference/pth").join(name)
}

#[test]
fn both_of_pytorchs_formats_give_the_bits_that_were_saved() {
    let expected = Tensors::read(&fixture("expect.safetensors")).unwrap();
    for file in ["archive.pth.tar", "older.pth.tar"] {
        let pth = Pth::open(&fixture(file)).unwrap();
        for (name, tensor) in &expected.tensors {
            let ours = pth.tensor(name).unwrap();
            assert_eq!((ours.kind(), ours.size()), (tensor.kind(), tensor.size()), "{file}: {name}");
            assert_eq!(&ours, tensor, "{file}: {name}");
        }
        assert_eq!(pth.names().count(), expected.tensors.len(), "{file}");
    }
}

// ---- Building files.

/// A zip of stored entries; `twist` may change an entry's local header and its directory record.
fn zip_of(entries: &[(&str, Vec<u8>)], twist: impl Fn(&str, &mut Vec<u8>, &mut Vec<u8>)) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, data) in entries {
        let at = file.len() as u32;
        let length = (data.len() as u32).to_le_bytes();
        let common = [[0u8; 12].as_slice(), &length, &length, &(name.len() as u16).to_le_bytes(), &[0, 0]].concat();
        let mut own = [b"PK\x03\x04\x14\0".as_slice(), &common[..]].concat();
        let mut entry =
            [b"PK\x01\x02\x14\0\x14\0".as_slice(), &common[..], &[0; 10], &at.to_le_bytes(), name.as_bytes()].concat();
        twist(name, &mut own, &mut entry);
        file.extend([own.as_slice(), name.as_bytes(), data].concat());
        directory.extend(entry);
    }
    let count = (entries.len() as u16).to_le_bytes();
    let (length, start) = ((directory.len() as u32).to_le_bytes(), (file.len() as u32).to_le_bytes());
    file.extend(directory);
    file.extend([b"PK\x05\x06\0\0\0\0".as_slice(), &count, &count, &length, &start, &[0, 0]].concat());
    file
}

fn global(name: &str) -> Vec<u8> {
    let (module, name) = name.rsplit_once('.').unwrap();
    format!("c{module}\n{name}\n").into_bytes()
}

fn text(text: &str) -> Vec<u8> {
    [b"X".as_slice(), &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat()
}

fn number(value: i64) -> Vec<u8> {
    [b"\x8a\x08".as_slice(), &value.to_le_bytes()].concat()
}

fn tuple(items: &[i64]) -> Vec<u8> {
    [b"(".to_vec(), items.iter().flat_map(|n| number(*n)).collect(), b"t".to_vec()].concat()
}

fn storage(kind: &str, key: &str, count: i64) -> Vec<u8> {
    let kind = global(&format!("torch.{kind}"));
    [b"(".to_vec(), text("storage"), kind, text(key), text("cpu"), number(count), b"tQ".to_vec()].concat()
}

/// A pickled tensor of a storage.
fn tensor(storage: Vec<u8>, offset: i64, size: &[i64], stride: &[i64]) -> Vec<u8> {
    let function = global("torch._utils._rebuild_tensor_v2");
    [function, b"(".to_vec(), storage, number(offset), tuple(size), tuple(stride), b"\x89}tR".to_vec()].concat()
}

/// {"w": `value`}
fn dict(value: Vec<u8>) -> Vec<u8> {
    [b"\x80\x02}".to_vec(), text("w"), value, b"s.".to_vec()].concat()
}

/// An archive of a pickle and of storage 0 with six f32.
fn archive(pickle: Vec<u8>) -> Vec<u8> {
    zip_of(&[("a/data.pkl", pickle), ("a/data/0", vec![0; 24]), ("a/byteorder", b"little".to_vec())], |_, _, _| ())
}

fn six() -> Vec<u8> {
    storage("FloatStorage", "0", 6)
}

/// The outcome of opening the file and reading all its tensors.
fn said(file: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.pth");
    fs::write(&path, file).unwrap();
    let read = || -> Result<()> {
        let pth = Pth::open(&path)?;
        let names: Vec<String> = pth.names().map(String::from).collect();
        names.iter().try_for_each(|name| pth.tensor(name).map(drop))
    };
    read().map_or_else(|error| format!("{error:#}"), |()| "it was read".into())
}

#[test]
fn a_file_made_here_is_read() {
    assert_eq!(said(&archive(dict(tensor(six(), 0, &[2, 3], &[3, 1])))), "it was read");
    assert_eq!(said(&archive(dict(tensor(six(), 1, &[2], &[4])))), "it was read");
}

#[test]
fn hostile_pickles_are_refused() {
    let refused = |what: &str, pickle: Vec<u8>, why: &str| {
        let said = said(&archive(pickle));
        assert!(said.contains(why), "{what}: {said}");
    };
    for name in [
        "os.system",
        "posix.system",
        "builtins.eval",
        "builtins.getattr",
        "subprocess.Popen",
        "torch.hub.load",
        "torch.load",
        "torch.storage._load_from_bytes",
        "numpy.core.multiarray._reconstruct",
    ] {
        let call = [global(name), b"(".to_vec(), text("touch /tmp/x"), b"tR".to_vec()].concat();
        refused(name, dict(call), &format!("it names '{name}'"));
        // The same in protocol 4, from strings on the stack.
        let (module, short) = name.rsplit_once('.').unwrap();
        let call = [text(module), text(short), b"\x93)R".to_vec()].concat();
        refused(name, dict(call), &format!("it names '{name}'"));
    }
    refused("an object of an old class", dict(b"(ios\nsystem\n".to_vec()), "does not occur");
    refused("an extension code", dict(b"\x82\x01".to_vec()), "does not occur");
    refused("a call of a string", dict([text("x"), b")R".to_vec()].concat()), "calls something that is not a function");
    refused("a call with no tuple", dict([global("torch.Size"), b"NR".to_vec()].concat()), "not a tuple");
    refused(
        "a call of a storage's type",
        dict([global("torch.FloatStorage"), b")R".to_vec()].concat()),
        "is called with",
    );
    refused(
        "attributes of a tensor",
        dict([tensor(six(), 0, &[1], &[1]), b"}b".to_vec()].concat()),
        "sets attributes of something that has none",
    );
    refused("a stack that is empty", b"\x80\x02\x85.".to_vec(), "empty stack");
    refused("a stack below a mark", b"\x80\x02N(0.".to_vec(), "empty stack");
    refused("a missing mark", b"\x80\x02t.".to_vec(), "no mark");
    refused("a missing memo", b"\x80\x02h\x07.".to_vec(), "never written");
    refused("no end", b"\x80\x02}".to_vec(), "truncated");
    refused("a string beyond the end", b"\x80\x02X\xff\xff\xff\x7fabc".to_vec(), "ends too early");
    refused("a string of 2^63 bytes", b"\x80\x02\x8d\0\0\0\0\0\0\0\x80abc".to_vec(), "ends too early");
    refused("a number that does not end", [b"\x80\x02\x8a\xff".to_vec(), vec![0; 254]].concat(), "ends too early");
    refused("named arguments in no dict", dict([global("a.b"), b")N\x92".to_vec()].concat()), "are not a dict");
    refused("items for no set", dict(b"}(N\x90".to_vec()), "not a set");
    refused(
        "a parameter of a string",
        dict([global("torch._utils._rebuild_parameter"), text("x"), b"\x85R".to_vec()].concat()),
        "a parameter without a tensor",
    );
    refused("a reference to a module", dict([tuple(&[1]), b"Q".to_vec()].concat()), "a reference of 1 parts");
    refused("half an item", b"\x80\x02}(Nu.".to_vec(), "a key without a value");
}

/// {"w": a tensor, "x": `value`}
fn beside(value: Vec<u8>) -> Vec<u8> {
    let items = [text("w"), tensor(six(), 0, &[6], &[1]), b"s".to_vec(), text("x"), value, b"s.".to_vec()];
    [b"\x80\x02}".to_vec(), items.concat()].concat()
}

/// Opens the file, which need not exist afterwards.
fn open(file: &[u8]) -> Pth {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.pth");
    fs::write(&path, file).unwrap();
    Pth::open(&path).unwrap()
}

/// A call of `name` with these arguments.
fn call(name: &str, arguments: &[Vec<u8>]) -> Vec<u8> {
    [global(name), b"(".to_vec(), arguments.concat(), b"tR".to_vec()].concat()
}

#[test]
fn objects_beside_the_tensors_are_opaque() {
    let codec = || call("_codecs.encode", &[text("x"), text("latin1")]);
    let dtype =
        [call("numpy.dtype", &[text("f8"), b"\x89\x88".to_vec()]), b"(K\x03".to_vec(), text("<"), b"NNNtb".into()];
    let layout = call("torch.serialization._get_layout", &[text("torch.sparse_coo")]);
    let two = || tensor(six(), 0, &[2], &[1]);
    let sparse = [layout, b"(".to_vec(), two(), two(), tuple(&[2]), b"\x89t".to_vec()];
    let quantized = [storage("QInt8Storage", "9", 3), number(0), tuple(&[3]), tuple(&[1]), b"N\x89}".to_vec()];
    let adam = [global("torch.optim.adam.Adam"), b")\x81}(".to_vec(), text("state"), two(), b"ub".to_vec()];
    let counted = [global("collections.Counter"), b"}K\x1eK\x01s\x85R".to_vec()].concat();
    let defaults =
        [call("collections.defaultdict", &[global("builtins.list")]), b"(".into(), text("a"), b"K\x01u".into()];
    let deque = [call("collections.deque", &[]), b"K\x01a(K\x01e".to_vec()].concat();
    let named = [global("a.Sized"), b")}\x92".to_vec()].concat();
    let method = [call("builtins.getattr", &[global("a.Kind"), text("x")]), b")R".to_vec()].concat();
    for (value, expected) in [
        (call("numpy.core.multiarray.scalar", &[dtype.concat(), codec()]), "numpy.core.multiarray.scalar"),
        (codec(), "_codecs.encode"),
        (call("torch._utils._rebuild_sparse_tensor", &sparse), "torch._utils._rebuild_sparse_tensor"),
        (call("torch._utils._rebuild_qtensor", &quantized), "torch._utils._rebuild_qtensor"),
        (tensor(storage("ComplexFloatStorage", "9", 6), 0, &[6], &[1]), "torch.ComplexFloatStorage"),
        (adam.concat(), "torch.optim.adam.Adam"),
        (counted, "collections.Counter"),
        (defaults.concat(), "collections.defaultdict"),
        (deque, "collections.deque"),
        (named, "a.Sized"),
        (method, "builtins.getattr"),
        (call("torch.device", &[text("cpu")]), "torch.device"),
        (global("torch.float32"), "torch.float32"),
        (call("__builtin__.set", &[b"](K\x01K\x02e".to_vec()]), "__builtin__.set"),
        (b"\x8f(K\x01K\x02\x90".to_vec(), "set"),
        (b"(K\x01\x91".to_vec(), "frozenset"),
        (b"\x96\x02\0\0\0\0\0\0\0ab".to_vec(), "bytearray"),
        ([b"\x8a\x11".to_vec(), vec![1; 17]].concat(), "int"),
        // A name is all that is kept of a hostile one, too.
        (call("os.system", &[text("touch /tmp/x")]), "os.system"),
    ] {
        let file = archive(beside(value));
        assert_eq!(said(&file), "it was read", "{expected}");
        let pth = open(&file);
        assert_eq!(pth.names().collect::<Vec<_>>(), ["w"], "{expected}");
        assert_eq!(pth.others().collect::<Vec<_>>(), [("x", expected)]);
    }
}

#[test]
fn an_object_that_holds_the_tensors_is_named() {
    let model = [global("models.Net"), b")\x81}".to_vec(), text("w"), tensor(six(), 0, &[6], &[1]), b"sb.".to_vec()];
    let said = said(&archive([b"\x80\x02".to_vec(), model.concat()].concat()));
    assert!(said.contains("it names 'models.Net'") && said.contains("save only its state_dict"), "{said}");
}

#[test]
fn the_negative_bit_is_applied() {
    let with = |metadata: Vec<u8>| {
        let parts = [six(), number(1), tuple(&[2]), tuple(&[1]), b"\x89}".to_vec(), metadata];
        let pickle = beside(call("torch._utils._rebuild_tensor_v2", &parts));
        let numbers: Vec<u8> = (1..=6).flat_map(|i| (i as f32).to_le_bytes()).collect();
        open(&zip_of(&[("a/data.pkl", pickle), ("a/data/0", numbers)], |_, _, _| ()))
    };
    let flag = |name: &str, yes: &[u8]| [b"}".to_vec(), text(name), yes.to_vec(), b"s".to_vec()].concat();
    let values = |pth: &Pth| Vec::<f32>::try_from(pth.tensor("x").unwrap()).unwrap();
    assert_eq!(values(&with(b"N".to_vec())), [2.0, 3.0]);
    assert_eq!(values(&with(flag("neg", b"\x89"))), [2.0, 3.0]);
    assert_eq!(values(&with(flag("neg", b"\x88"))), [-2.0, -3.0]);
    // Metadata of another kind may change the numbers: such a tensor is not read.
    let others = with(flag("conj", b"\x88"));
    assert_eq!(others.others().next(), Some(("x", "torch._utils._rebuild_tensor_v2 with metadata")));
}

#[test]
fn a_tuple_of_dicts_is_numbered() {
    let weights = [b"}".to_vec(), text("w"), tensor(six(), 0, &[6], &[1]), b"s".to_vec()].concat();
    let pair = [b"\x80\x02(".to_vec(), weights, b"}t.".to_vec()].concat();
    assert_eq!(open(&archive(pair)).names().collect::<Vec<_>>(), ["0.w"]);
}

#[test]
fn a_torchscript_archive_is_called_one() {
    let entries = || vec![("a/data.pkl", dict(b"N".to_vec())), ("a/constants.pkl", vec![]), ("a/code/x.py", vec![1])];
    // Its code is compressed.
    let compressed = |name: &str, _: &mut Vec<u8>, entry: &mut Vec<u8>| {
        if name.ends_with(".py") {
            entry[10] = 8;
        }
    };
    let said = said(&zip_of(&entries(), compressed));
    assert!(said.contains("it is a TorchScript archive"), "{said}");
}

#[test]
fn hostile_shapes_are_refused() {
    let refused = |what: &str, value: Vec<u8>, why: &str| {
        let said = said(&archive(dict(value)));
        assert!(said.contains(why), "{what}: {said}");
    };
    refused("more than the storage has", tensor(six(), 0, &[7], &[1]), "beyond its storage of 6");
    refused("an offset behind the end", tensor(six(), 5, &[2], &[1]), "beyond its storage of 6");
    refused("an offset before the start", tensor(six(), -1, &[2], &[1]), "starts before its storage");
    refused("a stride beyond the end", tensor(six(), 0, &[2, 2], &[5, 1]), "beyond its storage of 6");
    refused("a negative stride", tensor(six(), 5, &[2], &[-1]), "negative");
    refused("a negative size", tensor(six(), 0, &[-2], &[1]), "negative");
    refused("one number a million times", tensor(six(), 0, &[1_000_000], &[0]), "repeat the 6 of its storage");
    refused("sizes whose product overflows", tensor(six(), 0, &[1 << 62, 4], &[0, 0]), "beyond its storage of 6");
    refused("strides whose sum overflows", tensor(six(), 0, &[3, 2], &[i64::MAX, i64::MAX]), "beyond its storage of 6");
    refused("an offset that overflows", tensor(six(), i64::MAX, &[1], &[1]), "beyond its storage of 6");
    refused("strides for other dimensions", tensor(six(), 0, &[2, 3], &[1]), "has 1 strides");
    refused("seventeen dimensions", tensor(six(), 0, &[1; 17], &[1; 17]), "of 17 dimensions");
    refused(
        "a storage larger than its file",
        tensor(storage("FloatStorage", "0", 7), 0, &[7], &[1]),
        "28 are expected",
    );
    refused("a storage of another type", tensor(storage("DoubleStorage", "0", 6), 0, &[6], &[1]), "48 are expected");
    refused(
        "a storage of 2^63 numbers",
        tensor(storage("FloatStorage", "0", i64::MAX), 0, &[1], &[1]),
        "do not fit in memory",
    );
    refused("a missing storage", tensor(storage("FloatStorage", "../../1", 6), 0, &[6], &[1]), "it is missing");
    refused("an unknown type", storage("ComplexFloatStorage", "0", 6), "it names 'torch.ComplexFloatStorage'");
}

#[test]
fn bombs_are_refused() {
    // Each dict contains the previous one ten times: 10^9 items in 500 bytes.
    let mut laughs = b"\x80\x02}".to_vec();
    for memo in 0..9u8 {
        laughs.extend([b'q', memo, b'}', b'(']);
        (0..10).for_each(|i| laughs.extend([text(&i.to_string()), vec![b'h', memo]].concat()));
        laughs.extend(b"u");
    }
    laughs.push(b'.');
    assert!(said(&archive(laughs)).contains("more than"));
    let deep = [b"\x80\x02}".to_vec(), [text("k"), b"}".to_vec()].concat().repeat(40), b"s".repeat(40), b".".to_vec()];
    assert!(said(&archive(deep.concat())).contains("nested more than"));
    // A dict that contains itself.
    let knot = [b"\x80\x02}q\0".to_vec(), text("k"), b"h\0s.".to_vec()].concat();
    assert!(said(&archive(knot)).contains("nested more than"));
    // Lists nested a million deep: nothing may recurse.
    let nest = [b"\x80\x02".to_vec(), b"]".to_vec(), b"\x85".repeat(1_000_000), b".".to_vec()].concat();
    assert_eq!(said(&archive(nest)), "it was read");
    let long = [b"\x80\x02N".to_vec(), b"0N".repeat(3 << 20), b".".to_vec()].concat();
    assert!(said(&archive(long)).contains("the limit is"));
    // One list, copied into dicts repeatedly.
    let mut copies = b"\x80\x02".to_vec();
    copies.extend(
        [global("collections.OrderedDict"), b"q\0](".to_vec(), b"NN\x86".repeat(300_000), b"e\x85q\x01".to_vec()]
            .concat(),
    );
    copies.extend(b"h\0h\x01R".repeat(1000));
    assert!(said(&archive([copies, b".".to_vec()].concat())).contains("from lists"));
    // One long name, used many times.
    let long = text(&"k".repeat(10_000));
    let class = [b"\x80\x02".to_vec(), long.clone(), b"q\0".to_vec(), b"h\0h\0\x930".repeat(1000), b"N.".to_vec()];
    assert!(said(&archive(class.concat())).contains("the name of a class"));
    let key = storage("FloatStorage", &"k".repeat(10_000), 6);
    assert!(said(&archive(dict(tensor(key, 0, &[6], &[1])))).contains("the name of a storage"));
    let name = text(&"k".repeat(1000));
    let names = [b"\x80\x02}".to_vec(), name, tensor(six(), 0, &[6], &[1]), b"s.".to_vec()].concat();
    assert!(said(&archive(names)).contains("names of more than"));
}

#[test]
fn damaged_archives_are_refused() {
    let good = || vec![("a/data.pkl", dict(tensor(six(), 0, &[6], &[1]))), ("a/data/0", vec![0; 24])];
    let twisted = |twist: &dyn Fn(&mut Vec<u8>, &mut Vec<u8>)| {
        let only = |name: &str, own: &mut Vec<u8>, entry: &mut Vec<u8>| {
            if name == "a/data/0" {
                twist(own, entry);
            }
        };
        said(&zip_of(&good(), only))
    };
    assert_eq!(twisted(&|_, _| ()), "it was read");
    // A zip bomb: a small entry that unpacks to a large one.
    assert!(twisted(&|_, entry| entry[10] = 8).contains("it is compressed"));
    assert!(twisted(&|_, entry| entry[8] = 1).contains("it is encrypted"));
    assert!(
        twisted(&|_, entry| entry[24..28].copy_from_slice(&u32::MAX.to_le_bytes())).contains("its two lengths differ")
    );
    assert!(twisted(&|_, entry| entry[20..28].copy_from_slice(&[0xfe; 8])).contains("longer than the file"));
    assert!(twisted(&|_, entry| entry[42..46].copy_from_slice(&[0xfe; 4])).contains("outside the file"));
    assert!(twisted(&|_, entry| entry[42..46].copy_from_slice(&7u32.to_le_bytes())).contains("has no local header"));
    assert!(twisted(&|_, entry| entry[42..46].copy_from_slice(&0u32.to_le_bytes())).contains("overlap"));
    assert!(twisted(&|_, entry| entry.truncate(30)).contains("damaged"));
    let whole = zip_of(&good(), |_, _, _| ());
    for length in 0..whole.len() {
        assert_ne!(said(&whole[..length]), "it was read", "cut to {length} bytes");
    }
    let twice = zip_of(&[good(), good()].concat(), |_, _, _| ());
    assert!(said(&twice).contains("two entries 'a/data.pkl'"));
    let two = [good(), vec![("b/data.pkl", vec![])]].concat();
    assert!(said(&zip_of(&two, |_, _, _| ())).contains("more than one data.pkl"));
    let big = [good(), vec![("a/byteorder", b"big".to_vec())]].concat();
    assert!(said(&zip_of(&big, |_, _, _| ())).contains("big-endian"));
    assert!(said(&zip_of(&good()[1..], |_, _, _| ())).contains("no data.pkl"));
    assert!(said(b"text").contains("does not begin like a PyTorch file"));
    let older = fs::read(fixture("older.pth.tar")).unwrap();
    for length in (0..older.len()).step_by(97) {
        assert_ne!(said(&older[..length]), "it was read", "cut to {length} bytes");
    }
}
