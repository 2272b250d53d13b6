//! Reads tensors from PyTorch files, zip or older, without executing anything in them.

mod pickle;
#[cfg(test)]
mod tests;
mod zip;

use anyhow::{Context as _, Result, bail, ensure};
use pickle::{Id, Storage, Tree, Value, View};
use std::{borrow::Cow, collections::BTreeMap, fs::File, ops::Range, path::Path};
use tch::Tensor;

/// Maximum size of a pickle: about 20,000 tensor descriptions.
const PICKLE: u64 = 4 << 20;
/// Limits for nested dicts: the number of items, the nesting depth, and the length of a joined name.
const ITEMS: usize = 1 << 18;
const DEPTH: usize = 32;
const NAME: usize = 512;
/// The first bytes of an archive; those of an older file, with its magic number in a pickle of protocol 2; and the
/// version that follows there.
const ARCHIVE: &[u8] = b"PK\x03\x04";
const OLDER: &[u8] = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";
const OLDER_VERSION: i128 = 1001;

/// An open file of tensors. Their values are read on demand.
#[derive(Debug)]
pub struct Pth {
    file: File,
    tree: Tree,
    /// The byte range of each storage, by its key.
    places: BTreeMap<String, Range<u64>>,
    tensors: BTreeMap<String, Id>,
    /// What is not read, by the same names.
    others: BTreeMap<String, Id>,
}

impl Pth {
    /// Whether a file that begins with these bytes is one.
    pub fn begins(bytes: &[u8]) -> bool {
        bytes.starts_with(ARCHIVE) || bytes.starts_with(OLDER)
    }

    /// Opens a file written by `torch.save`. Objects in it that are no tensors are not read. An error if it is damaged or
    /// contains only such objects.
    pub fn open(path: &Path) -> Result<Self> {
        let open = || {
            let file = File::open(path)?;
            let length = file.metadata()?.len();
            let start = zip::read(&file, 0, length.min(OLDER.len() as u64))?;
            if start.starts_with(ARCHIVE) {
                Self::archive(file)
            } else if start.starts_with(OLDER) {
                Self::older(file, length)
            } else {
                bail!("it does not begin like a PyTorch file")
            }
        };
        open().with_context(|| format!("cannot read {} as a PyTorch file", path.display()))
    }

    fn archive(file: File) -> Result<Self> {
        let entries = zip::entries(&file)?;
        let mut roots = entries.keys().filter_map(|name| name.strip_suffix("data.pkl")).filter(|r| r.ends_with('/'));
        let root = roots.next().context("its archive contains no data.pkl")?;
        ensure!(roots.next().is_none(), "its archive contains more than one data.pkl");
        let read = |name: &str| match entries.get(&format!("{root}{name}")) {
            Some(place) => {
                let length = place.end - place.start;
                ensure!(length <= PICKLE, "its {name} has {length} bytes; the limit is {PICKLE}");
                zip::read(&file, place.start, length).map(Some)
            }
            None => Ok(None),
        };
        let order = read("byteorder")?;
        ensure!(order.is_none_or(|order| order == b"little"), "its numbers are big-endian");
        let bytes = read("data.pkl")?.context("its archive contains no data.pkl")?;
        let tree = Tree::read(&mut bytes.as_slice())?;
        let place = |storage: &Storage| {
            let place = entries.get(&format!("{root}data/{}", storage.key));
            anyhow::Ok((storage.key.clone(), fitting(storage, place.cloned().context("it is missing")?)?))
        };
        let located = |storage: &Storage| place(storage).with_context(|| format!("storage '{}'", storage.key));
        let places = tree.storages().map(located).collect::<Result<_>>()?;
        Self::new(file, tree, places)
    }

    /// Five pickles, the fourth of which is the object and the fifth the list of its storage keys; then each storage,
    /// preceded by its length.
    fn older(file: File, length: u64) -> Result<Self> {
        let bytes = zip::read(&file, 0, length.min(PICKLE))?;
        let mut rest = &bytes[OLDER.len()..];
        let version = Tree::read(&mut rest)?;
        ensure!(*version.get(version.root) == Value::Int(OLDER_VERSION), "its version is not {OLDER_VERSION}");
        let system = Tree::read(&mut rest)?;
        let little = |(key, value): &(Id, Id)| {
            matches!(system.get(*key), Value::Text(text) if text == "little_endian")
                && *system.get(*value) == Value::Bool(true)
        };
        let said = matches!(system.get(system.root), Value::Map(pairs) if pairs.iter().any(little));
        ensure!(said, "its numbers are not marked as little-endian");
        let tree = Tree::read(&mut rest)?;
        let keys = Tree::read(&mut rest)?;
        let Value::Sequence(order) = keys.get(keys.root) else { bail!("its list of storages is not a list") };
        let known: BTreeMap<&str, &Storage> = tree.storages().map(|s| (s.key.as_str(), s)).collect();
        let mut places = BTreeMap::new();
        let mut at = (bytes.len() - rest.len()) as u64;
        for key in order {
            let Value::Text(key) = keys.get(*key) else { bail!("the key of a storage is not a string") };
            let unknown = || format!("storage '{key}' belongs to no tensor, or to one of a type that is not read");
            let storage = *known.get(key.as_str()).with_context(unknown)?;
            let mut place = || {
                let count = u64::from_le_bytes(zip::read(&file, at, 8)?.try_into().expect("eight bytes"));
                ensure!(count == storage.count, "it has {count} numbers where {} are expected", storage.count);
                let end = size(storage).and_then(|size| (at + 8).checked_add(size)).filter(|end| *end <= length);
                let place = at + 8..end.context("it is longer than the file")?;
                at = place.end;
                Ok(place)
            };
            places.insert(key.clone(), place().with_context(|| format!("storage '{key}'"))?);
        }
        drop(known);
        Self::new(file, tree, places)
    }

    fn new(file: File, tree: Tree, places: BTreeMap<String, Range<u64>>) -> Result<Self> {
        let (tensors, others) = named(&tree)?;
        if let (true, Some(foreign)) = (tensors.is_empty(), others.values().find_map(|id| tree.foreign(*id))) {
            bail!(
                "it contains no tensors; it names '{foreign}', which a file of weights does not need; nothing was \
                 executed. If you trust the file, load it in Python and save only its state_dict"
            );
        }
        Ok(Pth { file, tree, places, tensors, others })
    }

    /// The objects in nested dicts that are not read, by the same names, and the class or function of each.
    pub fn others(&self) -> impl Iterator<Item = (&str, &str)> {
        self.others.iter().filter_map(|(name, id)| Some((name.as_str(), self.tree.foreign(*id)?)))
    }

    /// The names of all tensors in nested dicts, keys joined by dots; the items of a tuple or list of dicts are numbered.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The tensor of this name, contiguous on the CPU. An error if it would reach beyond its storage.
    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        let id = self.tensors.get(name).with_context(|| format!("there is no tensor '{name}'"))?;
        let Value::Tensor(view) = self.tree.get(*id) else { bail!("'{name}' is not a tensor") };
        self.load(view).with_context(|| format!("tensor '{name}' of size {:?}", view.size))
    }

    fn load(&self, view: &View) -> Result<Tensor> {
        let Value::Storage(storage) = self.tree.get(view.storage) else { bail!("it has no storage") };
        let place = self.places.get(&storage.key).with_context(|| format!("storage '{}' is missing", storage.key))?;
        let reach = reach(view, storage.count)?;
        let width = storage.kind.elt_size_in_bytes();
        let start = place.start + view.offset * width as u64;
        let bytes = zip::read(&self.file, start, reach * width as u64)?;
        let run = Tensor::f_from_data_size(&bytes, &[i64::try_from(reach)?], storage.kind)?;
        let tensor = run.f_as_strided(&view.size, &view.stride, 0)?.contiguous();
        Ok(if view.negated { tensor.f_neg()? } else { tensor })
    }
}

/// The size of a storage in bytes.
fn size(storage: &Storage) -> Option<u64> {
    storage.count.checked_mul(storage.kind.elt_size_in_bytes() as u64)
}

/// Returns `place` if the storage fills it exactly.
fn fitting(storage: &Storage, place: Range<u64>) -> Result<Range<u64>> {
    let found = place.end - place.start;
    let wanted = size(storage).with_context(|| format!("{} numbers do not fit in memory", storage.count))?;
    ensure!(found == wanted, "it has {found} bytes where {wanted} are expected");
    Ok(place)
}

/// The number of storage elements that a view spans from its offset. An error if it exceeds the storage, or if the view
/// has more elements than the storage: it repeats some, and a few bytes could ask for any amount of memory.
fn reach(view: &View, count: u64) -> Result<u64> {
    let beyond = || format!("it reaches beyond its storage of {count} numbers");
    let negative = view.size.iter().chain(&view.stride).any(|n| *n < 0);
    ensure!(!negative, "a size or stride is negative: {:?}", view.stride);
    let elements = view.size.iter().try_fold(1u64, |product, n| product.checked_mul(*n as u64));
    let elements = elements.with_context(beyond)?;
    if elements == 0 {
        return Ok(0);
    }
    let last = view.size.iter().zip(&view.stride).try_fold(0u64, |sum, (size, stride)| {
        (*size as u64 - 1).checked_mul(*stride as u64).and_then(|step| sum.checked_add(step))
    });
    let span = last.and_then(|last| last.checked_add(1)).with_context(beyond)?;
    let end = view.offset.checked_add(span).with_context(beyond)?;
    ensure!(end <= count, beyond());
    ensure!(
        elements <= count,
        "its {elements} elements repeat the {count} of its storage, as after expand(); save it as a copy, by clone()"
    );
    Ok(span)
}

/// The tensors in nested dicts, keys joined by dots, and what is opaque there.
fn named(tree: &Tree) -> Result<(BTreeMap<String, Id>, BTreeMap<String, Id>)> {
    let (mut tensors, mut others) = (BTreeMap::new(), BTreeMap::new());
    let mut open: Vec<(String, Id, usize)> = match tree.get(tree.root) {
        // Some programs save (state_dict, settings).
        Value::Sequence(items) => items.iter().enumerate().map(|(i, item)| (i.to_string(), *item, 0)).collect(),
        _ => vec![(String::new(), tree.root, 0)],
    };
    let mut looked_at = 0;
    while let Some((name, id, depth)) = open.pop() {
        looked_at += 1;
        ensure!(looked_at <= ITEMS, "its dicts have more than {ITEMS} items");
        match tree.get(id) {
            Value::Tensor(_) => drop(tensors.insert(name, id)),
            Value::Foreign(_) | Value::Opaque(_) => drop(others.insert(name, id)),
            Value::Map(pairs) => {
                ensure!(depth < DEPTH, "its dicts are nested more than {DEPTH} deep");
                for (key, value) in pairs {
                    let key: Cow<str> = match tree.get(*key) {
                        Value::Text(text) => text.into(),
                        Value::Int(number) => number.to_string().into(),
                        _ => continue,
                    };
                    ensure!(name.len() + key.len() < NAME, "its dicts make names of more than {NAME} characters");
                    let name = if name.is_empty() { key.into_owned() } else { format!("{name}.{key}") };
                    open.push((name, *value, depth + 1));
                    ensure!(looked_at + open.len() <= ITEMS, "its dicts have more than {ITEMS} items");
                }
            }
            _ => {}
        }
    }
    Ok((tensors, others))
}
