//! Reads MATLAB's MAT-files of level 5, the annotation format of several data sets: numbers, text, cells and structs.
//!
//! Source: MathWorks, "MAT-File Format" (R2022b), chapter "Level 5 MAT-File Format". A file is a header of 128 bytes and
//! elements, each a tag (type, length) and its data padded to eight bytes; a matrix is an element of elements. Every
//! length is
//! checked against the bytes available, so that a damaged file is an error and not a crash.

use anyhow::{Context, Result, bail, ensure};
use std::{collections::BTreeMap, io::Read, rc::Rc};

const HEADER: usize = 128;
/// Upper bound on the total size of decompressed variables. ImageNet's, the largest used here, has 1 MB.
const UNPACKED_MAX: u64 = 64 << 20;
/// Upper bound on the elements of cell and struct arrays in a file: empty ones cost memory too.
const ELEMENTS_MAX: usize = 1 << 20;
/// Maximum nesting depth of cells and structs.
const DEEPEST: usize = 16;

/// An element of a struct array, by field. All elements share the field names.
pub type Fields = BTreeMap<Rc<str>, Value>;

/// A value of a MAT-file.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// An array of numbers of any type, in MATLAB's (column-major) order.
    Numbers(Vec<f64>),
    /// Characters.
    Text(String),
    /// A cell array.
    Cells(Vec<Value>),
    /// A struct array: the fields of each element.
    Structs(Vec<Fields>),
    /// An object, a function or a sparse matrix: not read.
    Other,
}

impl Value {
    /// The numbers.
    pub fn numbers(&self) -> Result<&[f64]> {
        match self {
            Value::Numbers(numbers) => Ok(numbers),
            other => bail!("is {}, not numbers", other.sort()),
        }
    }

    /// The single number, which must be a non-negative integer.
    pub fn whole(&self) -> Result<u32> {
        match self.numbers()? {
            [n] => whole(*n),
            numbers => bail!("is {} numbers, not one", numbers.len()),
        }
    }

    /// The numbers, which must be non-negative integers.
    pub fn wholes(&self) -> Result<Vec<u32>> {
        self.numbers()?.iter().map(|n| whole(*n)).collect()
    }

    /// The text.
    pub fn text(&self) -> Result<&str> {
        match self {
            Value::Text(text) => Ok(text),
            other => bail!("is {}, not text", other.sort()),
        }
    }

    /// The elements of a cell array.
    pub fn cells(&self) -> Result<&[Value]> {
        match self {
            Value::Cells(cells) => Ok(cells),
            other => bail!("is {}, not a cell array", other.sort()),
        }
    }

    /// The elements of a struct array.
    pub fn structs(&self) -> Result<&[Fields]> {
        match self {
            Value::Structs(structs) => Ok(structs),
            other => bail!("is {}, not a struct array", other.sort()),
        }
    }

    fn sort(&self) -> &'static str {
        match self {
            Value::Numbers(_) => "an array of numbers",
            Value::Text(_) => "text",
            Value::Cells(_) => "a cell array",
            Value::Structs(_) => "a struct array",
            Value::Other => "an object, a function or a sparse matrix",
        }
    }
}

fn whole(n: f64) -> Result<u32> {
    ensure!(n.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&n), "{n} is not a whole number");
    Ok(n as u32)
}

/// A field of a struct.
pub fn field<'a>(of: &'a Fields, name: &str) -> Result<&'a Value> {
    of.get(name).with_context(|| {
        let fields: Vec<&str> = of.keys().map(|name| &**name).collect();
        format!("there is no field '{name}'; the fields are {}", fields.join(", "))
    })
}

/// The variables of a file, by name.
pub fn parse(file: &[u8]) -> Result<BTreeMap<String, Value>> {
    ensure!(file.len() >= HEADER, "the file ends within its header");
    ensure!(!file.starts_with(b"MATLAB 7.3"), "it is a MAT-file of version 7.3 (HDF5); save it with '-v7' instead");
    ensure!(&file[126..128] == b"IM", "it is not a little-endian MAT-file of level 5");
    let mut variables = BTreeMap::new();
    let (mut input, mut left, mut elements) = (Elements(&file[HEADER..]), UNPACKED_MAX, ELEMENTS_MAX);
    while let Some(element) = input.next()? {
        let (name, value) = match element.kind {
            COMPRESSED => {
                let unpacked = inflate(element.data, &mut left)?;
                let inner = Elements(&unpacked).next()?.context("a compressed variable is empty")?;
                ensure!(inner.kind == MATRIX, "a compressed variable has type {}, not a matrix", inner.kind);
                matrix(inner.data, DEEPEST, &mut elements)?
            }
            MATRIX => matrix(element.data, DEEPEST, &mut elements)?,
            _ => continue,
        };
        variables.insert(name, value);
    }
    Ok(variables)
}

/// A variable of a file.
pub fn variable<'a>(of: &'a BTreeMap<String, Value>, name: &str) -> Result<&'a Value> {
    of.get(name).with_context(|| {
        let names: Vec<&str> = of.keys().map(String::as_str).collect();
        format!("there is no variable '{name}'; the variables are: {}", names.join(", "))
    })
}

fn inflate(data: &[u8], left: &mut u64) -> Result<Vec<u8>> {
    let mut unpacked = vec![];
    flate2::read::ZlibDecoder::new(data)
        .take(*left + 1)
        .read_to_end(&mut unpacked)
        .context("a compressed variable is damaged")?;
    ensure!(unpacked.len() as u64 <= *left, "compressed variables unpack to more than {UNPACKED_MAX} bytes");
    *left -= unpacked.len() as u64;
    Ok(unpacked)
}

const MATRIX: u32 = 14;
const COMPRESSED: u32 = 15;

struct Element<'a> {
    kind: u32,
    data: &'a [u8],
}

/// A sequence of elements in a byte slice.
struct Elements<'a>(&'a [u8]);

impl<'a> Elements<'a> {
    fn next(&mut self) -> Result<Option<Element<'a>>> {
        if self.0.is_empty() {
            return Ok(None);
        }
        ensure!(self.0.len() >= 8, "the file ends within an element's tag");
        let word = |at: usize| u32::from_le_bytes(self.0[at..at + 4].try_into().expect("four bytes"));
        // A small element has its length in the upper half of the first word, and its data in the second.
        let (kind, length, start) = match word(0) >> 16 {
            0 => (word(0), word(4) as usize, 8),
            length => (word(0) & 0xffff, length as usize, 4),
        };
        let room = if start == 4 { 4 } else { self.0.len() - 8 };
        ensure!(length <= room, "an element claims {length} bytes, {room} are left");
        let data = &self.0[start..start + length];
        // Compressed elements are not padded.
        let padded = if start == 4 || kind == COMPRESSED { length } else { length.next_multiple_of(8) };
        let end = if start == 4 { 8 } else { (start + padded).min(self.0.len()) };
        self.0 = &self.0[end..];
        Ok(Some(Element { kind, data }))
    }

    fn need(&mut self, what: &str) -> Result<Element<'a>> {
        self.next()?.with_context(|| format!("a matrix ends before its {what}"))
    }
}

/// A matrix: its name and its value. `left` is how many more elements of cell and struct arrays are allowed.
fn matrix(data: &[u8], depth: usize, left: &mut usize) -> Result<(String, Value)> {
    ensure!(depth > 0, "arrays are nested more than {DEEPEST} deep");
    if data.is_empty() {
        return Ok((String::new(), Value::Numbers(vec![])));
    }
    let mut parts = Elements(data);
    let flags = numbers(&parts.need("flags")?)?;
    ensure!(flags.len() == 2, "a matrix has {} words of flags, not 2", flags.len());
    let class = flags[0] as u32 & 0xff;
    if !matches!(class, CELL | STRUCT | CHAR | DOUBLE..=UINT64) {
        return Ok((String::new(), Value::Other));
    }
    let shape = numbers(&parts.need("dimensions")?)?;
    let count = shape.iter().try_fold(1usize, |n, side| {
        let side = if (0.0..=1e9).contains(side) { *side as usize } else { usize::MAX };
        n.checked_mul(side)
    });
    let count = count.filter(|n| *n <= data.len()).context("a matrix claims more elements than it has bytes")?;
    let name = latin(parts.need("name")?.data);
    let value = match class {
        CELL => Value::Cells((0..count).map(|_| inner(&mut parts, depth, left)).collect::<Result<_>>()?),
        STRUCT => structs(&mut parts, count, depth, left)?,
        CHAR => text(&parts.need("characters")?)?,
        _ => {
            let found = numbers(&parts.need("numbers")?)?;
            ensure!(found.len() == count, "'{name}' has {} numbers, its dimensions say {count}", found.len());
            Value::Numbers(found)
        }
    };
    Ok((name, value))
}

const CELL: u32 = 1;
const STRUCT: u32 = 2;
const CHAR: u32 = 4;
const DOUBLE: u32 = 6;
const UINT64: u32 = 15;

fn inner(parts: &mut Elements, depth: usize, left: &mut usize) -> Result<Value> {
    *left = left.checked_sub(1).with_context(|| format!("its arrays have more than {ELEMENTS_MAX} elements"))?;
    let element = parts.need("elements")?;
    ensure!(element.kind == MATRIX, "an element of a cell or struct array has type {}, not a matrix", element.kind);
    Ok(matrix(element.data, depth - 1, left)?.1)
}

fn structs(parts: &mut Elements, count: usize, depth: usize, left: &mut usize) -> Result<Value> {
    let length = numbers(&parts.need("length of field names")?)?;
    let length = *length.first().context("a struct has no length of field names")? as usize;
    ensure!((1..=1024).contains(&length), "a struct has field names of {length} bytes");
    let names = parts.need("field names")?.data;
    ensure!(names.len().is_multiple_of(length), "a struct's field names are truncated");
    let names: Vec<Rc<str>> = names.chunks(length).map(|name| latin(name).into()).collect();
    ensure!(!names.is_empty() || count == 0, "a struct array of {count} elements has no fields");
    let mut one = |parts: &mut Elements| {
        names.iter().map(|name| Ok((name.clone(), inner(parts, depth, left)?))).collect::<Result<BTreeMap<_, _>>>()
    };
    Ok(Value::Structs((0..count).map(|_| one(parts)).collect::<Result<_>>()?))
}

/// Latin-1 text up to the first zero byte.
fn latin(bytes: &[u8]) -> String {
    bytes.iter().take_while(|b| **b != 0).map(|b| *b as char).collect()
}

/// Numbers of any stored type.
fn numbers(element: &Element) -> Result<Vec<f64>> {
    fn all<const N: usize>(data: &[u8], read: fn([u8; N]) -> f64) -> Result<Vec<f64>> {
        ensure!(data.len().is_multiple_of(N), "{} bytes are not a whole number of {N}-byte items", data.len());
        Ok(data.chunks_exact(N).map(|item| read(item.try_into().expect("N bytes"))).collect())
    }
    let data = element.data;
    match element.kind {
        1 => all(data, |b| f64::from(i8::from_le_bytes(b))),
        2 => all(data, |b| f64::from(u8::from_le_bytes(b))),
        3 => all(data, |b| f64::from(i16::from_le_bytes(b))),
        4 => all(data, |b| f64::from(u16::from_le_bytes(b))),
        5 => all(data, |b| f64::from(i32::from_le_bytes(b))),
        6 => all(data, |b| f64::from(u32::from_le_bytes(b))),
        7 => all(data, |b| f64::from(f32::from_le_bytes(b))),
        9 => all(data, f64::from_le_bytes),
        12 => all(data, |b| i64::from_le_bytes(b) as f64),
        13 => all(data, |b| u64::from_le_bytes(b) as f64),
        other => bail!("numbers have the unknown type {other}"),
    }
}

fn text(element: &Element) -> Result<Value> {
    Ok(Value::Text(match element.kind {
        16 => String::from_utf8(element.data.to_vec()).context("text is not UTF-8")?,
        4 | 17 => {
            let units: Vec<u16> =
                numbers(&Element { kind: 4, data: element.data })?.iter().map(|n| *n as u16).collect();
            String::from_utf16(&units).context("text is not UTF-16")?
        }
        1 | 2 => latin(element.data),
        other => bail!("text has the unknown type {other}"),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &[u8] = include_bytes!("../../tests/formats/plain.mat");
    const PACKED: &[u8] = include_bytes!("../../tests/formats/packed.mat");

    #[test]
    fn files_written_by_scipy_are_read() {
        for file in [PLAIN, PACKED] {
            let variables = parse(file).unwrap();
            assert_eq!(variable(&variables, "labels").unwrap().wholes().unwrap(), [3, 1, 2, 77]);
            assert_eq!(variable(&variables, "halves").unwrap().numbers().unwrap(), [0.5, 2.5, -1.5, 3.5]);
            let names = variable(&variables, "names").unwrap().cells().unwrap();
            let names: Vec<&str> = names.iter().map(|name| name.text().unwrap()).collect();
            assert_eq!(names, ["AM General Hummer SUV 2000", "Citroën", "x"]);
            let annotations = variable(&variables, "annotations").unwrap().structs().unwrap();
            assert_eq!(annotations.len(), 2);
            assert_eq!(field(&annotations[1], "fname").unwrap().text().unwrap(), "00002.jpg");
            assert_eq!(field(&annotations[1], "class").unwrap().whole().unwrap(), 196);
        }
    }

    #[test]
    fn missing_variables_and_wrong_types_are_errors() {
        let variables = parse(PLAIN).unwrap();
        let message = |error: anyhow::Error| format!("{error:#}");
        assert!(message(variable(&variables, "setid").unwrap_err()).contains("the variables are: annotations, halves"));
        assert!(message(variables["labels"].text().unwrap_err()).contains("an array of numbers, not text"));
        assert!(message(variables["labels"].whole().unwrap_err()).contains("4 numbers, not one"));
        assert!(message(variables["halves"].wholes().unwrap_err()).contains("0.5 is not a whole number"));
        let annotation = &variables["annotations"].structs().unwrap()[0];
        assert!(message(field(annotation, "klass").unwrap_err()).contains("the fields are class, fname"));
        assert!(message(parse(b"MATLAB 7.3").unwrap_err()).contains("header"));
    }

    /// An element: its tag and its padded data.
    fn element(kind: u32, data: &[u8]) -> Vec<u8> {
        let mut bytes = [kind.to_le_bytes(), (data.len() as u32).to_le_bytes()].concat();
        bytes.extend(data);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    /// A file of one matrix: class, dimensions, and what follows its name.
    fn file(class: u32, shape: &[i32], rest: &[u8]) -> Vec<u8> {
        let words = |words: &[i32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
        let parts =
            [element(6, &words(&[class as i32, 0])), element(5, &words(shape)), element(1, b"x"), rest.to_vec()];
        let mut bytes = vec![0; 126];
        bytes.extend(b"IM");
        bytes.extend(element(MATRIX, &parts.concat()));
        bytes
    }

    #[test]
    fn arrays_of_empty_elements_are_bounded() {
        let empty = element(MATRIX, b"").repeat(ELEMENTS_MAX + 1);
        let message = |file: &[u8]| format!("{:#}", parse(file).unwrap_err());
        assert!(message(&file(CELL, &[1, ELEMENTS_MAX as i32 + 1], &empty)).contains("more than 1048576 elements"));
        let no_fields = [element(5, &8i32.to_le_bytes()), element(1, b"")].concat();
        assert!(message(&file(STRUCT, &[1, 9], &no_fields)).contains("has no fields"));
        assert_eq!(parse(&file(5, &[60_000, 60_000], b"")).unwrap()[""], Value::Other);
    }

    #[test]
    fn damaged_files_are_errors() {
        for file in [PLAIN, PACKED] {
            for length in 0..file.len() {
                let _ = parse(&file[..length]);
            }
            for byte in 0..file.len() {
                let mut flipped = file.to_vec();
                flipped[byte] ^= 0xff;
                let _ = parse(&flipped);
            }
        }
        assert!(parse(&PLAIN[..PLAIN.len() / 2]).is_err());
    }
}
