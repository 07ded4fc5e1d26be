//! CSV (RFC 4180, with line feeds): the fields of a JSON object in a fixed order.

use std::io::{self, Write};

use serde_json::Value;

use super::Object;

/// Writes objects, after a header line if there is to be one.
pub(super) fn write<O: Object>(
    out: &mut impl Write,
    objects: &[O],
    headers: bool,
) -> io::Result<()> {
    // Through memory, since the writer wraps errors so that a broken pipe is not seen as one.
    let mut csv = csv::Writer::from_writer(Vec::new());
    if headers {
        csv.write_record(O::FIELDS)?;
    }
    for object in objects {
        let object = serde_json::to_value(object)?;
        csv.write_record(O::FIELDS.iter().map(|field| text(&object[*field])))?;
    }
    let text = csv.into_inner().map_err(io::Error::other)?;
    out.write_all(&text)
}

/// Text as it is, nothing for what is missing, JSON for what has parts.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
