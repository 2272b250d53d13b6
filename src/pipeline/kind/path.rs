//! Paths in a stage's folder, each written in one way: `./a//b/` is `a/b`. They are names of inputs and outputs, and parts
//! of keys.

use serde::{Deserialize, Deserializer, de::Error};
use std::collections::BTreeMap;

/// The path without empty parts and without `.`. What leads elsewhere, `..` and absolute paths, stays as it is: it is
/// refused later.
pub fn normal(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if path.starts_with('/') || parts.is_empty() { path.into() } else { parts.join("/") }
}

/// Reads a path.
pub(super) fn one<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    String::deserialize(deserializer).map(|path| normal(&path))
}

/// Reads a path that may be missing.
pub(super) fn some<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.map(|path| normal(&path)))
}

/// Reads a list of paths.
pub(super) fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Vec::<String>::deserialize(deserializer)?.iter().map(|path| normal(path)).collect())
}

/// Reads a map from paths.
pub(super) fn map<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, T>, D::Error> {
    let mut paths = BTreeMap::new();
    for (written, value) in BTreeMap::<String, T>::deserialize(deserializer)? {
        let path = normal(&written);
        if paths.insert(path.clone(), value).is_some() {
            return Err(D::Error::custom(format!("'{path}' is named twice, once as '{written}'")));
        }
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_written_in_one_way() {
        for path in ["a/b", "./a/b", "a//b/", "a/./b", ".//a/././b//."] {
            assert_eq!(normal(path), "a/b");
        }
        for path in ["a/../b", "..", "/a/b", ".", "./", "/", "", ".a", "a.b", "a./b", "..a"] {
            assert_eq!(normal(path), path);
        }
    }
}
