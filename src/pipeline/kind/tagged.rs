//! Enums whose variants hold a struct each, written `Variant(field: value, …)`. With what serde derives, RON would have
//! parentheses twice: `Variant((field: value))`.

use serde::{Deserialize, Deserializer, de};
use std::{fmt, marker::PhantomData};

/// An enum whose variants hold a struct each.
pub trait Tagged<'de>: Sized {
    /// What it is, with an example, for errors.
    const EXPECTED: &'static str;

    /// Reads the variant of this name, whose fields are [`parameters`] of `body`.
    fn read<A: de::VariantAccess<'de>>(name: &str, body: A) -> Result<Self, A::Error>;
}

/// Reads a value. `name` is that of its type.
pub fn deserialize<'de, T: Tagged<'de>, D: Deserializer<'de>>(
    deserializer: D,
    name: &'static str,
    variants: &'static [&'static str],
) -> Result<T, D::Error> {
    deserializer.deserialize_enum(name, variants, Visitor(PhantomData))
}

/// Reads the fields of a variant.
pub fn parameters<'de, T: Deserialize<'de>, A: de::VariantAccess<'de>>(body: A) -> Result<T, A::Error> {
    body.struct_variant(&[], Fields(PhantomData))
}

struct Visitor<T>(PhantomData<T>);

impl<'de, T: Tagged<'de>> de::Visitor<'de> for Visitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_enum<A: de::EnumAccess<'de>>(self, access: A) -> Result<T, A::Error> {
        let (Identifier(name), body) = access.variant()?;
        T::read(&name, body)
    }
}

struct Identifier(String);

impl<'de> Deserialize<'de> for Identifier {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Identifier, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Identifier;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("the name of a variant")
            }
            fn visit_str<E: de::Error>(self, name: &str) -> Result<Identifier, E> {
                Ok(Identifier(name.into()))
            }
        }
        deserializer.deserialize_identifier(Visitor)
    }
}

struct Fields<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> de::Visitor<'de> for Fields<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("the fields of a variant")
    }

    fn visit_map<A: de::MapAccess<'de>>(self, fields: A) -> Result<T, A::Error> {
        T::deserialize(de::value::MapAccessDeserializer::new(fields))
    }
}
