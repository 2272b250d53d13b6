//! Reads a pickle as plain data: names of classes and functions are compared with an allowlist, and nothing is ever
//! called. Supports what PyTorch files of weights contain. Any other object, such as an optimizer or a NumPy number beside
//! the weights, becomes an opaque value that keeps only the name of its class (Python's Lib/pickletools.py documents each
//! opcode).
//!
//! Values are stored in one vector and refer to each other by number. Nesting of any depth is dropped and walked
//! without recursion, and a pickle of n bytes makes at most n values.

use anyhow::{Context as _, Result, bail, ensure};
use std::collections::BTreeMap;
use tch::Kind;

/// The index of a value in its tree.
pub type Id = usize;

/// A value of a pickle.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `None`.
    None,
    /// A boolean.
    Bool(bool),
    /// An integer.
    Int(i128),
    /// A float.
    Float(f64),
    /// A string, or bytes that are not one.
    Text(String),
    /// A tuple, a list or a `torch.Size`.
    Sequence(Vec<Id>),
    /// A `dict` or an `OrderedDict` as pairs of key and value; an `argparse.Namespace`, empty.
    Map(Vec<(Id, Id)>),
    /// A class or function on the allowlist.
    Name(Name),
    /// The name of any other class or function, which is never looked up.
    Foreign(String),
    /// What such a class or function would make; the index of its name.
    Opaque(Id),
    /// The memory of tensors.
    Storage(Storage),
    /// A tensor.
    Tensor(View),
}

/// The memory of tensors: an array of numbers elsewhere in the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Storage {
    /// Its name in the file.
    pub key: String,
    /// The type of its numbers.
    pub kind: Kind,
    /// The number of elements.
    pub count: u64,
}

/// A tensor as part of a storage.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// The index of its storage in the tree.
    pub storage: Id,
    /// The offset of its first element.
    pub offset: u64,
    /// Its size.
    pub size: Vec<i64>,
    /// Its strides, in elements.
    pub stride: Vec<i64>,
    /// Whether its elements are those of the storage with the other sign (PyTorch's negative bit).
    pub negated: bool,
}

/// The classes and functions that a pickle may name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Name {
    /// `collections.OrderedDict`
    OrderedDict,
    /// `argparse.Namespace`, in which training scripts keep their arguments.
    Namespace,
    /// `torch.Size`
    Size,
    /// `torch._utils._rebuild_tensor` and `_rebuild_tensor_v2`
    RebuildTensor,
    /// `torch._utils._rebuild_parameter` and `_rebuild_parameter_with_state`
    RebuildParameter,
    /// `torch.FloatStorage` and similar
    Storage(Kind),
}

impl Name {
    fn find(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("collections", "OrderedDict") => Name::OrderedDict,
            ("argparse", "Namespace") => Name::Namespace,
            ("torch", "Size") => Name::Size,
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Name::RebuildTensor,
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => Name::RebuildParameter,
            ("torch", storage) => Name::Storage(match storage.strip_suffix("Storage")? {
                "Double" => Kind::Double,
                "Float" => Kind::Float,
                "Half" => Kind::Half,
                "BFloat16" => Kind::BFloat16,
                "Long" => Kind::Int64,
                "Int" => Kind::Int,
                "Short" => Kind::Int16,
                "Char" => Kind::Int8,
                "Byte" => Kind::Uint8,
                "Bool" => Kind::Bool,
                _ => return None,
            }),
            _ => return None,
        })
    }
}

/// A parsed pickle.
#[derive(Debug)]
pub struct Tree {
    values: Vec<Value>,
    /// The value that was pickled.
    pub root: Id,
}

impl Tree {
    /// Reads one pickle from the start of `bytes`, and advances `bytes` past it.
    pub fn read(bytes: &mut &[u8]) -> Result<Self> {
        let length = bytes.len();
        let mut machine =
            Machine { bytes, values: vec![], stack: vec![], marks: vec![], memo: BTreeMap::new(), copied: 0 };
        let root = loop {
            let at = length - machine.bytes.len();
            let code = machine.byte().context("the pickle is truncated")?;
            let done = machine.step(code).with_context(|| format!("byte {at} of the pickle (opcode {code:#04x})"))?;
            if let Some(root) = done {
                break root;
            }
        };
        *bytes = machine.bytes;
        Ok(Tree { values: machine.values, root })
    }

    /// The value with this index.
    pub fn get(&self, id: Id) -> &Value {
        &self.values[id]
    }

    /// The name of the class or function that an opaque value comes from.
    pub fn foreign(&self, id: Id) -> Option<&str> {
        match &self.values[id] {
            Value::Foreign(name) => Some(name),
            Value::Opaque(of) => self.foreign(*of),
            _ => None,
        }
    }

    /// All storages that the pickle names.
    pub fn storages(&self) -> impl Iterator<Item = &Storage> {
        self.values.iter().filter_map(|value| match value {
            Value::Storage(storage) => Some(storage),
            _ => None,
        })
    }
}

/// The stack machine that executes pickles.
struct Machine<'a> {
    bytes: &'a [u8],
    values: Vec<Value>,
    stack: Vec<Id>,
    /// Marked heights of the stack.
    marks: Vec<usize>,
    memo: BTreeMap<u64, Id>,
    /// Items copied from lists so far. A short pickle could copy a long list many times.
    copied: usize,
}

const COPIED: usize = 1 << 20;
const DIMENSIONS: usize = 16;
/// Maximum length of the name of a class or a storage. Each use copies it, and a use takes only a few bytes.
const NAME: usize = 256;

impl Machine<'_> {
    /// Executes one opcode; returns the result if it was the last.
    fn step(&mut self, code: u8) -> Result<Option<Id>> {
        match code {
            // PROTO, FRAME
            0x80 => drop(self.take(1)?),
            0x95 => drop(self.take(8)?),
            b'.' => return self.pop().map(Some),
            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.since_mark()?),
            b'N' => self.push(Value::None),
            0x88 => self.push(Value::Bool(true)),
            0x89 => self.push(Value::Bool(false)),
            b'K' | b'M' | b'J' | 0x8a => self.number(code)?,
            b'G' => {
                let value = f64::from_be_bytes(self.array()?);
                self.push(Value::Float(value));
            }
            // Strings and bytes, with lengths of one, four or eight bytes.
            0x8c | b'X' | 0x8d | b'U' | b'T' | b'C' | b'B' | 0x8e => self.text(code)?,
            b')' | b']' => self.push(Value::Sequence(vec![])),
            b'}' => self.push(Value::Map(vec![])),
            b't' | b'l' => {
                let items = self.since_mark()?;
                self.push(Value::Sequence(items));
            }
            0x85..=0x87 => {
                let from = self.below(usize::from(code - 0x84))?;
                let items = self.stack.split_off(from);
                self.push(Value::Sequence(items));
            }
            b'a' | b'e' => self.append(code)?,
            b's' | b'u' | b'd' => self.set(code)?,
            b'q' | b'r' | 0x94 | b'h' | b'j' => self.remember(code)?,
            b'c' | 0x93 => self.name(code)?,
            b'R' | 0x81 => self.call()?,
            // A call with named arguments, which no weights need.
            0x92 => {
                let named = self.pop()?;
                ensure!(matches!(self.values[named], Value::Map(_)), "the named arguments of a call are not a dict");
                self.call()?;
            }
            b'b' => self.build()?,
            // A set, items for one, a frozen set, an array of bytes.
            0x8f => self.push(Value::Foreign("set".into())),
            0x90 => self.add()?,
            0x91 => {
                self.since_mark()?;
                self.push(Value::Foreign("frozenset".into()));
            }
            0x96 => {
                let length = u64::from_le_bytes(self.array()?);
                self.take(usize::try_from(length)?)?;
                self.push(Value::Foreign("bytearray".into()));
            }
            b'Q' => self.persistent()?,
            _ => bail!("this opcode does not occur in files of weights"),
        }
        Ok(None)
    }

    fn number(&mut self, code: u8) -> Result<()> {
        let value = match code {
            b'K' => self.byte()?.into(),
            b'M' => u16::from_le_bytes(self.array()?).into(),
            b'J' => i32::from_le_bytes(self.array()?).into(),
            _ => {
                let count = usize::from(self.byte()?);
                let digits = self.take(count)?;
                // Larger than any length: the state of a random number generator.
                if count > 16 {
                    self.push(Value::Foreign("int".into()));
                    return Ok(());
                }
                let mut wide = [if digits.last().is_some_and(|d| *d >= 0x80) { 0xff } else { 0 }; 16];
                wide[..count].copy_from_slice(digits);
                i128::from_le_bytes(wide)
            }
        };
        self.push(Value::Int(value));
        Ok(())
    }

    fn text(&mut self, code: u8) -> Result<()> {
        let length = match code {
            0x8c | b'U' | b'C' => self.byte()?.into(),
            0x8d | 0x8e => u64::from_le_bytes(self.array()?),
            _ => u32::from_le_bytes(self.array()?).into(),
        };
        let bytes = self.take(usize::try_from(length)?)?;
        // Python 2 wrote strings as bytes.
        let text = match code {
            0x8c | b'X' | 0x8d => std::str::from_utf8(bytes).context("a string is not UTF-8")?.into(),
            _ => String::from_utf8_lossy(bytes).into_owned(),
        };
        self.push(Value::Text(text));
        Ok(())
    }

    fn append(&mut self, code: u8) -> Result<()> {
        let items = if code == b'a' { vec![self.pop()?] } else { self.since_mark()? };
        let list = self.top()?;
        if self.foreign(list).is_some() {
            return Ok(());
        }
        let Value::Sequence(sequence) = &mut self.values[list] else {
            bail!("it appends to something that is not a list")
        };
        sequence.extend(items);
        Ok(())
    }

    fn set(&mut self, code: u8) -> Result<()> {
        let items = match code {
            b's' => {
                let from = self.below(2)?;
                self.stack.split_off(from)
            }
            _ => self.since_mark()?,
        };
        ensure!(items.len().is_multiple_of(2), "a key without a value");
        if code == b'd' {
            self.push(Value::Map(vec![]));
        }
        let map = self.top()?;
        if self.foreign(map).is_some() {
            return Ok(());
        }
        let Value::Map(pairs) = &mut self.values[map] else { bail!("it sets an item of something that is not a dict") };
        pairs.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1])));
        Ok(())
    }

    /// Items of a set, which are ignored.
    fn add(&mut self) -> Result<()> {
        self.since_mark()?;
        let set = self.top()?;
        ensure!(self.foreign(set).is_some(), "it adds to something that is not a set");
        Ok(())
    }

    fn remember(&mut self, code: u8) -> Result<()> {
        let number = match code {
            b'q' | b'h' => self.byte()?.into(),
            b'r' | b'j' => u32::from_le_bytes(self.array()?).into(),
            _ => self.memo.len() as u64,
        };
        if matches!(code, b'h' | b'j') {
            let Some(id) = self.memo.get(&number) else { bail!("memo {number} was never written") };
            self.stack.push(*id);
        } else {
            let id = self.top()?;
            self.memo.insert(number, id);
        }
        Ok(())
    }

    fn name(&mut self, code: u8) -> Result<()> {
        let (module, name) = match code {
            b'c' => (self.line()?, self.line()?),
            _ => {
                let from = self.below(2)?;
                let both = self.stack.split_off(from);
                let text = |id: Id| match &self.values[id] {
                    Value::Text(text) => Ok(text.clone()),
                    _ => bail!("a name is not a string"),
                };
                (text(both[0])?, text(both[1])?)
            }
        };
        ensure!(module.len() + name.len() < NAME, "the name of a class has more than {NAME} characters");
        let foreign = || Value::Foreign(format!("{module}.{name}"));
        self.push(Name::find(&module, &name).map_or_else(foreign, Value::Name));
        Ok(())
    }

    /// Evaluates a call, for the few supported functions. Any other is not called; its result is opaque.
    fn call(&mut self) -> Result<()> {
        let from = self.below(2)?;
        let both = self.stack.split_off(from);
        if let (Some(foreign), Value::Sequence(_)) = (self.foreign(both[0]), &self.values[both[1]]) {
            self.push(Value::Opaque(foreign));
            return Ok(());
        }
        let (Value::Name(name), Value::Sequence(arguments)) = (&self.values[both[0]], &self.values[both[1]]) else {
            bail!("it calls something that is not a function, or with something that is not a tuple")
        };
        let made = match (name, arguments.as_slice()) {
            (Name::OrderedDict | Name::Namespace, []) => Value::Map(vec![]),
            (Name::OrderedDict, [items]) => {
                self.copied += self.sequence(*items)?.len();
                ensure!(self.copied <= COPIED, "it copies more than {COPIED} items from lists into dicts");
                Value::Map(self.pairs(*items)?)
            }
            (Name::Size, [items]) => {
                self.stack.push(*items);
                return Ok(());
            }
            (Name::RebuildTensor, [storage, offset, size, stride, rest @ ..]) => {
                self.tensor([*storage, *offset, *size, *stride], rest.get(2).copied())?
            }
            (Name::RebuildParameter, [tensor, ..]) => {
                let is_tensor = matches!(self.values[*tensor], Value::Tensor(_)) || self.foreign(*tensor).is_some();
                ensure!(is_tensor, "a parameter without a tensor");
                self.stack.push(*tensor);
                return Ok(());
            }
            _ => bail!("{name:?} is called with {} arguments", arguments.len()),
        };
        self.push(made);
        Ok(())
    }

    /// A tensor of storage, offset, size and strides; `metadata` is a dict of what else PyTorch keeps of it.
    fn tensor(&self, [storage, offset, size, stride]: [Id; 4], metadata: Option<Id>) -> Result<Value> {
        if let Some(foreign) = self.foreign(storage) {
            return Ok(Value::Opaque(foreign));
        }
        ensure!(matches!(self.values[storage], Value::Storage(_)), "a tensor without a storage");
        let offset = u64::try_from(self.whole(offset)?).context("a tensor starts before its storage")?;
        let (size, stride) = (self.numbers(size)?, self.numbers(stride)?);
        ensure!(size.len() == stride.len(), "a tensor of {} dimensions has {} strides", size.len(), stride.len());
        let Some(negated) = self.negated(metadata) else {
            return Ok(Value::Foreign("torch._utils._rebuild_tensor_v2 with metadata".into()));
        };
        Ok(Value::Tensor(View { storage, offset, size, stride, negated }))
    }

    /// Whether the metadata of a tensor says that its sign is to be flipped; `None` if it says anything else.
    fn negated(&self, metadata: Option<Id>) -> Option<bool> {
        let Some(metadata) = metadata else { return Some(false) };
        match &self.values[metadata] {
            Value::None => Some(false),
            Value::Map(pairs) => {
                pairs.iter().try_fold(false, |negated, (key, value)| match (&self.values[*key], &self.values[*value]) {
                    (Value::Text(key), Value::Bool(yes)) if key == "neg" => Some(*yes),
                    (Value::Text(key), Value::Bool(false)) if key == "conj" => Some(negated),
                    _ => None,
                })
            }
            _ => None,
        }
    }

    /// The name that an opaque value comes from.
    fn foreign(&self, id: Id) -> Option<Id> {
        match self.values[id] {
            Value::Foreign(_) => Some(id),
            Value::Opaque(of) => Some(of),
            _ => None,
        }
    }

    /// The pairs of a list of pairs.
    fn pairs(&self, items: Id) -> Result<Vec<(Id, Id)>> {
        let pair = |item: &Id| match self.sequence(*item)? {
            [key, value] => Ok((*key, *value)),
            _ => bail!("an item of a dict is not a pair"),
        };
        self.sequence(items)?.iter().map(pair).collect()
    }

    /// Attributes, which are ignored: `_metadata` of a state_dict, the arguments in a `Namespace`, the state of an
    /// opaque object.
    fn build(&mut self) -> Result<()> {
        self.pop()?;
        let object = self.top()?;
        let has_some = matches!(self.values[object], Value::Map(_)) || self.foreign(object).is_some();
        ensure!(has_some, "it sets attributes of something that has none");
        Ok(())
    }

    /// ('storage', type, key, place, count), in older files followed by the part of another storage that it is.
    fn persistent(&mut self) -> Result<()> {
        let id = self.pop()?;
        let fields = self.sequence(id)?;
        let [tag, kind, key, _place, count, part @ ..] = fields else { bail!("a reference of {} parts", fields.len()) };
        // Complex or quantized numbers, and other types that weights do not have.
        if let Some(foreign) = self.foreign(*kind) {
            self.push(Value::Opaque(foreign));
            return Ok(());
        }
        let whole = part.iter().all(|part| self.values[*part] == Value::None);
        ensure!(whole, "a storage is part of another; save the file again with a newer PyTorch");
        let (Value::Text(tag), Value::Name(Name::Storage(kind)), Value::Text(key)) =
            (&self.values[*tag], &self.values[*kind], &self.values[*key])
        else {
            bail!("a reference is not to a storage")
        };
        ensure!(tag == "storage", "a reference to a '{tag}'");
        ensure!(key.len() < NAME, "the name of a storage has more than {NAME} characters");
        let count = u64::try_from(self.whole(*count)?).context("the length of a storage")?;
        let storage = Storage { key: key.clone(), kind: *kind, count };
        self.push(Value::Storage(storage));
        Ok(())
    }

    fn sequence(&self, id: Id) -> Result<&[Id]> {
        match &self.values[id] {
            Value::Sequence(items) => Ok(items),
            _ => bail!("a list or tuple was expected"),
        }
    }

    fn whole(&self, id: Id) -> Result<i64> {
        match self.values[id] {
            Value::Int(number) => i64::try_from(number).with_context(|| format!("{number} is not a length")),
            _ => bail!("an integer was expected"),
        }
    }

    fn numbers(&self, id: Id) -> Result<Vec<i64>> {
        let items = self.sequence(id)?;
        ensure!(items.len() <= DIMENSIONS, "a tensor of {} dimensions", items.len());
        items.iter().map(|id| self.whole(*id)).collect()
    }

    fn push(&mut self, value: Value) {
        self.stack.push(self.values.len());
        self.values.push(value);
    }

    /// The stack height `count` below the top, which must be above the last mark.
    fn below(&self, count: usize) -> Result<usize> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let from = self.stack.len().checked_sub(count).filter(|from| *from >= floor);
        from.context("it pops an empty stack")
    }

    fn pop(&mut self) -> Result<Id> {
        self.below(1)?;
        self.stack.pop().context("it pops an empty stack")
    }

    fn top(&self) -> Result<Id> {
        self.stack.last().copied().context("it reads an empty stack")
    }

    fn since_mark(&mut self) -> Result<Vec<Id>> {
        let mark = self.marks.pop().context("there is no mark")?;
        Ok(self.stack.split_off(mark))
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.take(N)?.try_into().expect("as many as were taken"))
    }

    fn take(&mut self, count: usize) -> Result<&[u8]> {
        let Some((taken, rest)) = self.bytes.split_at_checked(count) else { bail!("it ends too early") };
        self.bytes = rest;
        Ok(taken)
    }

    fn line(&mut self) -> Result<String> {
        let end = self.bytes.iter().position(|b| *b == b'\n').context("a name does not end")?;
        let line = String::from_utf8(self.take(end)?.into()).context("a name is not UTF-8")?;
        self.take(1)?;
        Ok(line)
    }
}
