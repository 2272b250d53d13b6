//! Reads the JSON file of a command's measurements, and writes them as metrics are kept.
//!
//! The file is read here and not by a JSON library, for two reasons. Other programs write what JSON does not have: a
//! byte-order mark, and Python's `NaN`, `Infinity` and `-Infinity`. And a library silently rounds whole numbers
//! that no float holds. Metrics that are written as they are kept, by this program or another, are read by `measure`.

use super::{regular, walk};
use anyhow::{Context, Result, bail};
use caco_measure::metric::{self, Metric};
use serde::de::IgnoredAny;
use std::{collections::BTreeMap, path::Path};

/// Writes the metrics in `file` of the output folder `out` there as metrics are kept.
///
/// # Errors
/// Where the file is missing, is no JSON, or holds no number or one that would be rounded.
pub fn collect(file: &str, out: &Path) -> Result<()> {
    // No file outside the folder is read or written through a link, and no pipe is waited for.
    for path in [out.join(file), out.join(metric::FILE)].iter().filter(|path| path.symlink_metadata().is_ok()) {
        walk::has_links_inside(out, path)?;
        regular::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    }
    let wrote = || format!("it wrote no readable '{file}' (`metrics`)");
    if file == metric::FILE {
        return metric::read(&out.join(file)).map(drop).with_context(wrote);
    }
    let text = regular::read(&out.join(file)).with_context(wrote)?;
    let text = String::from_utf8(text).with_context(|| format!("its '{file}' (`metrics`) is not UTF-8"))?;
    let value = Reader::whole(&text).map_err(|error| anyhow::anyhow!("its '{file}' (`metrics`) {error}"))?;
    let mut metrics = vec![];
    gather(&value, "", "", &mut metrics);
    if metrics.is_empty() {
        bail!("its '{file}' (`metrics`) holds no number; write an object such as {{\"accuracy\": 0.9}}");
    }
    metric::write(&out.join(metric::FILE), &metrics).context("cannot write the metrics")
}

/// Every number in a value: its path is its name, but for `train`, `val` and `test`, which are splits.
fn gather(value: &Value, name: &str, split: &str, metrics: &mut Vec<Metric>) {
    let below = |key: &str| if name.is_empty() { key.to_string() } else { format!("{name}.{key}") };
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let is_object = matches!(value, Value::Object(_));
                if is_object && split.is_empty() && ["train", "val", "test"].contains(&key.as_str()) {
                    gather(value, name, key, metrics);
                } else {
                    gather(value, &below(key), split, metrics);
                }
            }
        }
        Value::List(items) => {
            items.iter().enumerate().for_each(|(i, item)| gather(item, &below(&i.to_string()), split, metrics));
        }
        Value::Number(number) => metrics.push(Metric::new(name, split, *number)),
        Value::Other => {}
    }
}

/// A JSON value, of which only numbers matter.
#[derive(Debug)]
enum Value {
    Number(f64),
    /// Sorted: the order in which a program writes its metrics is not part of them.
    Object(BTreeMap<String, Value>),
    List(Vec<Value>),
    Other,
}

/// No metrics are nested deeper. Prevents a stack overflow.
const DEEPEST: u32 = 128;

/// A JSON text, and the current position.
struct Reader<'t> {
    text: &'t str,
    at: usize,
    depth: u32,
}

impl<'t> Reader<'t> {
    fn whole(text: &str) -> Result<Value> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut reader = Reader { text, at: 0, depth: 0 };
        let value = reader.value()?;
        reader.space();
        if reader.at < text.len() { Err(reader.unlike("the end")) } else { Ok(value) }
    }

    fn place(&self) -> String {
        let before = &self.text[..self.at];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        format!("line {line}, column {column}")
    }

    fn unlike(&self, expected: &str) -> anyhow::Error {
        let found = match self.text[self.at..].chars().next() {
            Some(found) => format!("has {found:?}"),
            None => "ends".into(),
        };
        anyhow::anyhow!("is no JSON: it {found} at {}, where {expected} was expected", self.place())
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len();
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn value(&mut self) -> Result<Value> {
        self.space();
        match self.peek() {
            Some(b'{') => self.nested(Self::object),
            Some(b'[') => self.nested(Self::list),
            Some(b'"') => self.string().map(|_| Value::Other),
            _ => self.word(),
        }
    }

    fn nested(&mut self, read: fn(&mut Self) -> Result<Value>) -> Result<Value> {
        self.depth += 1;
        if self.depth > DEEPEST {
            bail!("is nested more than {DEEPEST} deep at {}; write a flatter object", self.place());
        }
        self.at += 1;
        let value = read(self);
        self.depth -= 1;
        value
    }

    fn object(&mut self) -> Result<Value> {
        let mut fields = BTreeMap::new();
        self.space();
        if self.take(b'}') {
            return Ok(Value::Object(fields));
        }
        loop {
            self.space();
            let at = self.at;
            let name = self.string()?;
            self.space();
            if !self.take(b':') {
                return Err(self.unlike("':'"));
            }
            let value = self.value()?;
            if fields.insert(name.clone(), value).is_some() {
                self.at = at;
                bail!(
                    "names '{name}' twice in one object, again at {}; give each value a name of its own",
                    self.place()
                );
            }
            self.space();
            if self.take(b'}') {
                return Ok(Value::Object(fields));
            }
            if !self.take(b',') {
                return Err(self.unlike("',' or '}'"));
            }
        }
    }

    fn list(&mut self) -> Result<Value> {
        let mut items = vec![];
        self.space();
        if self.take(b']') {
            return Ok(Value::List(items));
        }
        loop {
            items.push(self.value()?);
            self.space();
            if self.take(b']') {
                return Ok(Value::List(items));
            }
            if !self.take(b',') {
                return Err(self.unlike("',' or ']'"));
            }
        }
    }

    fn string(&mut self) -> Result<String> {
        if self.peek() != Some(b'"') {
            return Err(self.unlike("a string"));
        }
        let bytes = &self.text.as_bytes()[self.at..];
        let mut end = 1;
        while bytes.get(end).is_some_and(|byte| *byte != b'"') {
            end += if bytes[end] == b'\\' { 2 } else { 1 };
        }
        let read = self.text.get(self.at..=self.at + end).and_then(|quoted| serde_json::from_str(quoted).ok());
        let read = read.with_context(|| format!("is no JSON: it has no whole string at {}", self.place()))?;
        self.at += end + 1;
        Ok(read)
    }

    /// A value without brackets or quotes.
    fn word(&mut self) -> Result<Value> {
        let rest = &self.text[self.at..];
        let end = rest.find(|c: char| c.is_whitespace() || ",:[]{}\"".contains(c)).unwrap_or(rest.len());
        let value = match &rest[..end] {
            "" => return Err(self.unlike("a value")),
            "true" | "false" | "null" => Value::Other,
            "NaN" => Value::Number(f64::NAN),
            "Infinity" => Value::Number(f64::INFINITY),
            "-Infinity" => Value::Number(f64::NEG_INFINITY),
            word => Value::Number(self.number(word)?),
        };
        self.at += end;
        Ok(value)
    }

    fn number(&self, word: &str) -> Result<f64> {
        let is_json = serde_json::from_str::<IgnoredAny>(word).is_ok();
        let Some(number) = word.parse::<f64>().ok().filter(|_| is_json) else { return Err(self.unlike("a value")) };
        let whole = word.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
        if whole && format!("{number:.0}") != word {
            bail!(
                "has {word} at {}, which a number of 64 bits would round to {number:.0}; write it as a string, or measure in larger units",
                self.place()
            );
        }
        Ok(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(text: &str) -> Vec<(String, String, f64)> {
        let mut metrics = vec![];
        gather(&Reader::whole(text).unwrap(), "", "", &mut metrics);
        metrics.into_iter().map(|m| (m.name, m.split, m.value)).collect()
    }

    fn named(found: &[(&str, &str, f64)]) -> Vec<(String, String, f64)> {
        found.iter().map(|(name, split, value)| (name.to_string(), split.to_string(), *value)).collect()
    }

    #[test]
    fn metrics_are_every_number_by_path_and_split() {
        let found = metrics(r#"{"test": {"loss": 2, "per": [0.1, 0.2]}, "note": "x", "accuracy": 0.5, "none": null}"#);
        let expected = [("accuracy", "", 0.5), ("loss", "test", 2.0), ("per.0", "test", 0.1), ("per.1", "test", 0.2)];
        assert_eq!(found, named(&expected));
    }

    #[test]
    fn what_other_programs_write_is_read() {
        let found = metrics(
            "\u{feff}{\"a\": Infinity, \"b\": -Infinity,\r\n\t\"c\": 1e999, \"d\": -1.5e-3 , \"e\\\"\": [ ]}\n",
        );
        assert_eq!(
            found,
            named(&[
                ("a", "", f64::INFINITY),
                ("b", "", f64::NEG_INFINITY),
                ("c", "", f64::INFINITY),
                ("d", "", -0.0015)
            ])
        );
        assert!(metrics("[NaN]")[0].2.is_nan());
    }

    #[test]
    fn a_whole_number_is_never_rounded() {
        assert_eq!(metrics("[9007199254740992, 18446744073709551616, -0]").len(), 3);
        for (text, word) in [
            ("{\"n\": 9007199254740993}", "9007199254740993"),
            ("{\"n\": 18446744073709551615}", "18446744073709551615"),
            ("[10000000000000000000000001]", "10000000000000000000000001"),
        ] {
            let error = Reader::whole(text).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn what_is_no_json_is_an_error_with_its_place() {
        for (text, place) in [
            ("", "line 1, column 1"),
            ("{", "line 1, column 2"),
            ("{\"a\": 1,}", "line 1, column 9"),
            ("{\n\"a\" 1}", "line 2, column 5"),
            ("[1 2]", "line 1, column 4"),
            ("nan", "line 1, column 1"),
            ("01", "line 1, column 1"),
            ("\"a", "line 1, column 1"),
            ("\"a\\", "line 1, column 1"),
            ("1 1", "line 1, column 3"),
            ("{\"a\": 1, \"a\": 2}", "line 1, column 10"),
        ] {
            let error = Reader::whole(text).unwrap_err().to_string();
            assert!(error.contains(place), "{text}: {error}");
        }
        assert!(Reader::whole(&"[".repeat(1000)).is_err());
    }
}
