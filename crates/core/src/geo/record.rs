//! Reads one record of a MaxMind-format file, whatever schema it was written in.
//!
//! Nested is the GeoIP2 schema (`{"country": {"iso_code"}, "city": {"names": {"en"}}}`), flat what
//! most other vendors write (`{"country_code", "city"}`); the autonomous system is
//! `autonomous_system_number` in both, or `asn`, also as the text `AS64496`. Fields that mean nothing
//! here are skipped without being expanded; a field of an unexpected type counts as absent.

use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::place::{CountryCode, Place, clean_city};

/// How a file writes its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Schema {
    /// The GeoIP2 schema: objects in objects, names by language.
    Nested,
    /// One level, text in fields.
    Flat,
}

/// The fields of a record that a place can come from.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Record<'a> {
    #[serde(borrow)]
    country: Field<'a>,
    #[serde(borrow)]
    country_code: Field<'a>,
    #[serde(borrow)]
    city: Field<'a>,
    #[serde(borrow)]
    city_name: Field<'a>,
    #[serde(borrow)]
    autonomous_system_number: Field<'a>,
    #[serde(borrow)]
    asn: Field<'a>,
}

impl Record<'_> {
    /// What the record says about its networks.
    pub(super) fn place(&self) -> Place {
        // A flat `country` may be a name; `country_code` beside it never is.
        let country = self.country_code.country().or_else(|| self.country.country());
        let city = self.city.city().or_else(|| self.city_name.city());
        let asn = self.autonomous_system_number.asn().or_else(|| self.asn.asn());
        Place { country, city, asn }
    }

    /// Nested if any field is an object.
    pub(super) fn schema(&self) -> Schema {
        let nested = |field: &Field<'_>| matches!(field, Field::Object { .. });
        if nested(&self.country) || nested(&self.city) { Schema::Nested } else { Schema::Flat }
    }
}

/// A field of either schema.
#[derive(Debug, Default)]
enum Field<'a> {
    #[default]
    Absent,
    Text(&'a str),
    Number(u64),
    Object {
        iso_code: Option<&'a str>,
        name: Option<&'a str>,
    },
}

impl Field<'_> {
    fn country(&self) -> Option<CountryCode> {
        match self {
            Field::Text(text) | Field::Object { iso_code: Some(text), .. } => {
                CountryCode::parse(text)
            }
            _ => None,
        }
    }

    fn city(&self) -> Option<std::sync::Arc<str>> {
        match self {
            Field::Text(text) | Field::Object { name: Some(text), .. } => clean_city(text),
            _ => None,
        }
    }

    fn asn(&self) -> Option<u32> {
        let number = match self {
            Field::Number(number) => u32::try_from(*number).ok()?,
            Field::Text(text) => text.trim_start_matches("AS").parse().ok()?,
            _ => return None,
        };
        // RFC 7607: zero is nobody's.
        (number != 0).then_some(number)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Field<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Field<'a>, D::Error> {
        deserializer.deserialize_any(FieldVisitor)
    }
}

struct FieldVisitor;

impl<'de> Visitor<'de> for FieldVisitor {
    type Value = Field<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Field<'de>, E> {
        Ok(Field::Text(text))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Field<'de>, E> {
        Ok(Field::Number(number))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Field<'de>, A::Error> {
        let (mut iso_code, mut name) = (None, None);
        while let Some(key) = map.next_key::<&str>()? {
            match key {
                "iso_code" => iso_code = text(map.next_value()?),
                "names" => name = map.next_value::<EnglishName<'de>>()?.0,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Field::Object { iso_code, name })
    }

    fn visit_str<E>(self, _: &str) -> Result<Field<'de>, E> {
        Ok(Field::Absent)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Field<'de>, E> {
        Ok(Field::Absent)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Field<'de>, E> {
        Ok(Field::Absent)
    }

    fn visit_u128<E>(self, _: u128) -> Result<Field<'de>, E> {
        Ok(Field::Absent)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Field<'de>, E> {
        Ok(Field::Absent)
    }

    fn visit_bytes<E>(self, _: &[u8]) -> Result<Field<'de>, E> {
        Ok(Field::Absent)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Field<'de>, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Field::Absent)
    }
}

fn text(field: Field<'_>) -> Option<&str> {
    match field {
        Field::Text(text) => Some(text),
        _ => None,
    }
}

/// Of names by language the English one; of a file that has none, the first.
struct EnglishName<'a>(Option<&'a str>);

impl<'de: 'a, 'a> Deserialize<'de> for EnglishName<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<EnglishName<'a>, D::Error> {
        deserializer.deserialize_any(NamesVisitor).map(EnglishName)
    }
}

struct NamesVisitor;

impl<'de> Visitor<'de> for NamesVisitor {
    type Value = Option<&'de str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("names by language")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<&'de str>, A::Error> {
        let (mut english, mut first) = (None, None);
        while let Some(language) = map.next_key::<&str>()? {
            if language == "en" {
                english = text(map.next_value()?);
            } else if first.is_none() {
                first = text(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(english.or(first))
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Option<&'de str>, E> {
        Ok(Some(name))
    }
}
