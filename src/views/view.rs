//! A view: a list of operations.

use super::{
    former::Former,
    operation::{Crop, First, Operation},
};
use caco_pipeline::kind::Complaint;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, value::MapAccessDeserializer},
    ser::SerializeSeq as _,
};
use std::{borrow::Cow, fmt};

/// A random view: a list of operations in the order of application, `[Crop(size: 224, scale: (0.2, 1.0)), Flip(p: 0.5)]`.
/// The first is a crop, which decides the size of the view, and no other is.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// The first operation.
    pub crop: Crop,
    /// The others.
    pub operations: Vec<Operation>,
}

impl View {
    /// The side, in pixels.
    pub fn size(&self) -> usize {
        self.crop.size as usize
    }

    /// Checks ranges.
    pub(super) fn check(&self) -> Result<(), Complaint> {
        let of = |kind: &'static str| move |c: Complaint| Complaint { field: format!("{kind}.{}", c.field), ..c };
        self.crop.check().map_err(of("Crop"))?;
        self.operations.iter().try_for_each(|operation| operation.check().map_err(of(operation.kind())))
    }

    /// The name of the stream from which the operation at a place draws. From the second of a kind on, it has a number.
    pub(super) fn stream(&self, place: usize) -> Cow<'static, str> {
        let name = self.operations[place].stream();
        match self.operations[..place].iter().filter(|before| before.stream() == name).count() {
            0 => name.into(),
            before => format!("{name} {}", before + 1).into(),
        }
    }
}

impl Serialize for View {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(1 + self.operations.len()))?;
        list.serialize_element(&First::Crop(self.crop.clone()))?;
        self.operations.iter().try_for_each(|operation| list.serialize_element(operation))?;
        list.end()
    }
}

impl<'de> Deserialize<'de> for View {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<View, D::Error> {
        // Not `deserialize_seq`: the former form of a view is a struct.
        deserializer.deserialize_any(Visitor)
    }
}

struct Visitor;

impl<'de> de::Visitor<'de> for Visitor {
    type Value = View;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a list of operations, such as [Crop(size: 224, scale: (0.2, 1.0)), Flip(p: 0.5)]")
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<View, A::Error> {
        let Some(First::Crop(crop)) = list.next_element()? else {
            return Err(de::Error::custom(
                "a view without operations\nhelp: begin with [Crop(size: 224, scale: (0.2, 1.0))]",
            ));
        };
        let mut operations = vec![];
        while let Some(operation) = list.next_element()? {
            operations.push(operation);
        }
        Ok(View { crop, operations })
    }

    fn visit_map<A: de::MapAccess<'de>>(self, fields: A) -> Result<View, A::Error> {
        let former = Former::deserialize(MapAccessDeserializer::new(fields))?;
        Err(de::Error::custom(format!("a view is a list of operations\nhelp: write {}", former.now())))
    }
}

impl JsonSchema for View {
    fn schema_name() -> Cow<'static, str> {
        "View".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let (first, others) = (generator.subschema_for::<First>(), generator.subschema_for::<Operation>());
        json_schema!({
            "description": "A random view: a list of operations in the order of application. The first is a crop, which \
                            decides the size of the view, and no other is.",
            "type": "array", "minItems": 1, "prefixItems": [first], "items": others,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::Flip;

    fn read(text: &str) -> Result<View, String> {
        caco_pipeline::kind::options().from_str(text).map_err(|error| error.code.to_string())
    }

    #[test]
    fn a_view_is_written_as_a_list() {
        let view = read("[Crop(size: 24, scale: (0.4, 1.0)), Flip(p: 0.5)]").unwrap();
        let crop = Crop { size: 24, scale: (0.4, 1.0) };
        assert_eq!(view, View { crop, operations: vec![Operation::Flip(Flip { p: 0.5 })] });
        let json = serde_json::to_string(&view).unwrap();
        assert_eq!(json, r#"[{"Crop":{"size":24,"scale":[0.4,1.0]}},{"Flip":{"p":0.5}}]"#);
        assert_eq!(serde_json::from_str::<View>(&json).unwrap(), view);
    }

    #[test]
    fn every_stream_has_a_name_of_its_own() {
        let flips = "Flip(p: 0.5), Grey(p: 0.1), Flip(p: 0.5), Flip(p: 0.5)";
        let view = read(&format!("[Crop(size: 24, scale: (0.4, 1.0)), {flips}]")).unwrap();
        let names: Vec<_> = (0..4).map(|place| view.stream(place)).collect();
        assert_eq!(names, ["flip", "grey", "flip 2", "flip 3"]);
    }

    #[test]
    fn the_first_operation_and_no_other_is_a_crop() {
        assert!(read("[Flip(p: 0.5)]").unwrap_err().contains("must begin with a Crop"));
        assert!(read("[]").unwrap_err().contains("without operations"));
        let crop = "Crop(size: 24, scale: (0.4, 1.0))";
        assert!(read(&format!("[{crop}, {crop}]")).unwrap_err().contains("a second Crop"));
    }

    #[test]
    fn the_former_form_is_refused_with_the_present_one() {
        let jitter = "jitter: (brightness: 0.4, contrast: 0.3, saturation: 0.2, hue: 0.1), jitter_p: 0.8";
        let text = format!("(size: 24, scale: (0.4, 1.0), {jitter}, blur_p: 1.0, grey_p: 0.0)");
        let error = read(&text).unwrap_err();
        let present = error.split_once("help: write ").unwrap().1;
        assert_eq!(
            present,
            "[Crop(size: 24, scale: (0.4, 1.0)), Jitter(brightness: 0.4, contrast: 0.3, saturation: 0.2, hue: 0.1, \
             p: 0.8), Blur(p: 1.0)]"
        );
        read(present).unwrap();
    }
}
