//! Numbers that need not be finite. JSON has no word for those that are not, so they are the strings `"nan"`, `"inf"` and
//! `"-inf"` in it.

use serde::{Deserializer, Serialize, Serializer, de};
use std::fmt;

/// The word for a number that is not finite.
pub fn word(value: f64) -> Option<&'static str> {
    match value {
        value if value.is_nan() => Some("nan"),
        f64::INFINITY => Some("inf"),
        f64::NEG_INFINITY => Some("-inf"),
        _ => None,
    }
}

/// A number with this many decimals, for people.
pub fn decimals(value: f64, digits: usize) -> String {
    word(value).map_or_else(|| format!("{value:.digits$}"), String::from)
}

/// A number with all its digits.
pub fn plain(value: f64) -> String {
    word(value).map_or_else(|| value.to_string(), String::from)
}

/// The JSON schema of a number as [`serialize`] writes it.
pub fn schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "anyOf": [{ "type": "number" }, { "enum": ["nan", "inf", "-inf"], "type": "string" }] })
}

/// The JSON schema of a number as [`serialize_some`] writes it.
pub fn schema_some(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let mut schema = schema(generator);
    if let Some(ways) = schema.get_mut("anyOf").and_then(|ways| ways.as_array_mut()) {
        ways.push(serde_json::json!({ "type": "null" }));
    }
    schema
}

/// Serialises a number.
pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    match word(*value) {
        Some(word) => serializer.serialize_str(word),
        None => serializer.serialize_f64(*value),
    }
}

/// Serialises a number, if there is one.
pub fn serialize_some<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serialize(value, serializer),
        None => None::<f64>.serialize(serializer),
    }
}

/// Reads a number that [`serialize`] wrote; also `null`, which earlier versions wrote, as NaN.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    deserializer.deserialize_any(Words)
}

struct Words;

impl de::Visitor<'_> for Words {
    type Value = f64;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a number, \"nan\", \"inf\" or \"-inf\"")
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<f64, E> {
        Ok(value)
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<f64, E> {
        Ok(value as f64)
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<f64, E> {
        Ok(value as f64)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<f64, E> {
        match text {
            "nan" => Ok(f64::NAN),
            "inf" => Ok(f64::INFINITY),
            "-inf" => Ok(f64::NEG_INFINITY),
            _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
        }
    }

    fn visit_unit<E: de::Error>(self) -> Result<f64, E> {
        Ok(f64::NAN)
    }
}

/// What other programs write for these numbers (Python `NaN`, `Infinity` and `-Infinity`), and how it is written here.
const FOREIGN: [(&str, &str); 3] = [("NaN", "\"nan\""), ("-Infinity", "\"-inf\""), ("Infinity", "\"inf\"")];

/// JSON of another program, with its numbers that are not finite as this program writes them.
pub fn quoted(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    let (mut in_string, mut escaped, mut rest) = (false, false, json);
    while let Some(c) = rest.chars().next() {
        let foreign = FOREIGN.iter().find(|(word, _)| !in_string && rest.starts_with(word));
        if let Some((word, ours)) = foreign {
            text += ours;
            rest = &rest[word.len()..];
            continue;
        }
        in_string ^= c == '"' && !escaped;
        escaped = in_string && c == '\\' && !escaped;
        text.push(c);
        rest = &rest[c.len_utf8()..];
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_read_back() {
        #[derive(Serialize, serde::Deserialize)]
        struct Held(#[serde(serialize_with = "serialize", deserialize_with = "deserialize")] f64);
        for (value, text) in [
            (0.5, "0.5"),
            (-0.0, "-0.0"),
            (f64::INFINITY, "\"inf\""),
            (f64::NEG_INFINITY, "\"-inf\""),
            (f64::NAN, "\"nan\""),
        ] {
            assert_eq!(serde_json::to_string(&Held(value)).unwrap(), text);
            assert_eq!(serde_json::from_str::<Held>(text).unwrap().0.to_bits(), value.to_bits());
        }
        assert!(serde_json::from_str::<Held>("null").unwrap().0.is_nan());
        assert!(serde_json::from_str::<Held>("\"big\"").is_err());
    }

    #[test]
    fn words_of_other_programs_are_quoted_outside_of_strings() {
        let found = quoted(r#"{"NaN": NaN, "a\"Infinity": -Infinity, "b\\": Infinity}"#);
        assert_eq!(found, r#"{"NaN": "nan", "a\"Infinity": "-inf", "b\\": "inf"}"#);
    }

    #[test]
    fn people_read_words() {
        assert_eq!([decimals(f64::NAN, 2), decimals(1.0, 2), plain(f64::NEG_INFINITY)], ["nan", "1.00", "-inf"]);
    }
}
