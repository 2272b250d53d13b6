//! A data set as Croissant 1.1 metadata (<https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html>), derived
//! from its index: the images as files, and a table of them with path, label, size and digest.

use anyhow::{Context, Result, ensure};
use caco_engine::digest;
use serde::Deserialize;
use serde_json::{Value, json};

/// Metadata of a data set that is not in its index.
#[derive(Clone, Debug)]
pub struct About {
    /// Its name.
    pub name: String,
    /// Its licence.
    pub license: String,
    /// Its URL.
    pub url: String,
    /// The date of its index.
    pub date: String,
}

/// The metadata, and the table that they describe.
pub struct Croissant {
    /// `croissant.json`.
    pub metadata: Value,
    /// `images.jsonl`: the index without its header, each image with its class's name.
    pub table: String,
}

#[derive(Deserialize)]
struct Header {
    classes: Vec<String>,
    images: usize,
}

#[derive(Deserialize)]
struct Image {
    path: String,
    label: usize,
    shows: Option<Vec<usize>>,
    size: (u32, u32),
    bytes: u64,
    blake3: String,
    within: Option<Within>,
}

/// The file that an image is a part of.
#[derive(Deserialize)]
struct Within {
    file: String,
    offset: u64,
}

/// The context of Croissant 1.1, as its validator writes it.
const CONTEXT: &str = include_str!("croissant.context.json");

/// Reads an index's text.
pub fn of_index(text: &str, about: &About) -> Result<Croissant> {
    let mut lines = text.lines();
    let header: Header = serde_json::from_str(lines.next().unwrap_or_default()).context("line 1 is not a header")?;
    let (mut table, mut count, mut endings) = (String::new(), 0, std::collections::BTreeSet::new());
    for (i, line) in lines.enumerate() {
        let value: Value = serde_json::from_str(line).with_context(|| format!("line {} is not JSON", i + 2))?;
        if value.get("unreadable").is_some() {
            continue;
        }
        let image: Image = serde_json::from_value(value).with_context(|| format!("line {} is not an image", i + 2))?;
        let name = |label: &usize| {
            header.classes.get(*label).with_context(|| format!("line {}: label {label} has no name", i + 2))
        };
        let labels = image.shows.clone().unwrap_or_else(|| vec![image.label]);
        let names = labels
            .iter()
            .map(name)
            .collect::<Result<Vec<_>>>()?
            .into_iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(" ");
        let (width, height) = image.size;
        let mut row = json!({ "path": image.path, "label": names, "width": width, "height": height, "bytes": image.bytes, "blake3": image.blake3 });
        let mut file = image.path;
        if let Some(within) = image.within {
            row["file"] = within.file.clone().into();
            row["offset"] = within.offset.into();
            file = within.file;
        }
        table += &(row.to_string() + "\n");
        endings.extend(file.rsplit('.').next().map(String::from));
        count += 1;
    }
    ensure!(count == header.images, "it lists {count} images, but its header says {}", header.images);
    let globs: Vec<String> = endings.iter().map(|ending| format!("images/**/*.{ending}")).collect();
    Ok(Croissant { metadata: metadata(about, &header, &globs, &table), table })
}

fn metadata(about: &About, header: &Header, globs: &[String], table: &str) -> Value {
    let field = |name: &str, kind: &str, description: &str| {
        json!({
            "@type": "cr:Field", "@id": format!("images/{name}"), "name": format!("images/{name}"), "description": description,
            "dataType": kind,
            "source": { "fileObject": { "@id": "images.jsonl" }, "extract": { "column": name } },
        })
    };
    json!({
        "@context": serde_json::from_str::<Value>(CONTEXT).expect("the context is JSON"),
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": about.name,
        "description": format!("{} images of {} classes: {}", header.images, header.classes.len(), header.classes.join(", ")),
        "license": about.license,
        "url": about.url,
        "version": "1.0.0",
        "citeAs": format!("{}, images.jsonl with SHA-256 {}", about.name, digest::sha256(table.as_bytes())),
        "creator": { "@type": "sc:Organization", "name": "the creators of the images; metadata by caco" },
        "datePublished": about.date,
        "distribution": [
            {
                "@type": "cr:FileObject", "@id": "images.jsonl", "name": "images.jsonl",
                "description": "one image per line: path, class, size, digest",
                "contentUrl": "images.jsonl", "encodingFormat": "application/jsonlines",
                "contentSize": format!("{} B", table.len()), "sha256": digest::sha256(table.as_bytes()),
            },
            {
                "@type": "cr:FileSet", "@id": "image-files", "name": "image-files", "description": "the images, below images/",
                "encodingFormat": "image/jpeg", "includes": globs,
            },
        ],
        "recordSet": [{
            "@type": "cr:RecordSet", "@id": "images", "name": "images", "description": "the images and their labels",
            "key": { "@id": "images/path" },
            "field": [
                field("path", "sc:Text", "path below images/, parts separated by /"),
                field("label", "sc:Text", "name of the class that it shows; several, separated by spaces"),
                field("width", "sc:Integer", "pixels"),
                field("height", "sc:Integer", "pixels"),
                field("bytes", "sc:Integer", "length of the file"),
                field("blake3", "sc:Text", "BLAKE3 of the file, hexadecimal"),
            ],
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const INDEX: &str = concat!(
        r#"{"format":1,"classes":["cat","dog"],"images":2}"#,
        "\n",
        r#"{"path":"cat/1.jpg","label":0,"size":[4,5],"bytes":9,"blake3":"ab"}"#,
        "\n",
        r#"{"path":"dog/2.png","label":1,"shows":[0,1],"size":[4,5],"bytes":9,"blake3":"cd"}"#,
        "\n",
        r#"{"path":"dog/3.jpg","unreadable":"cut"}"#,
        "\n",
    );

    #[test]
    fn an_index_becomes_a_table_and_its_description() {
        let about = About { name: "pets".into(), license: "l".into(), url: "u".into(), date: "2020-02-02".into() };
        let found = of_index(INDEX, &about).unwrap();
        assert_eq!(found.table.lines().count(), 2);
        assert!(found.table.contains(r#""label":"cat dog""#));
        let metadata = &found.metadata;
        assert_eq!(metadata["distribution"][0]["sha256"], digest::sha256(found.table.as_bytes()).to_string());
        assert_eq!(metadata["distribution"][1]["includes"], json!(["images/**/*.jpg", "images/**/*.png"]));
        let cut: String = INDEX.lines().take(2).collect::<Vec<_>>().join("\n");
        assert!(of_index(&cut, &about).err().unwrap().to_string().contains("1 images, but its header says 2"));
    }
}
