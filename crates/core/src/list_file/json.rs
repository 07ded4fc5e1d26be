//! JSON: an array, or one value after the other, of texts or objects.

use serde_json::{Map, Value};

use super::csv::{ENDS, NETWORK, REASON};
use super::{ListFileError, Reading};

/// The fields that hold the list where a document is an object.
const LISTS: [&str; 4] = ["items", "entries", "networks", "data"];

pub(super) fn read(text: &str, reading: &mut Reading) -> Result<(), ListFileError> {
    let mut at = Place { text, at: 0, line: 1 };
    at.pass_white();
    if at.next() == Some(b'[') {
        at.advance(1);
        return array(&mut at, reading);
    }
    let mut first = true;
    while at.next().is_some() {
        let (line, value) = at.value()?;
        match value {
            // One object that holds the list: its line is all there is to tell.
            Value::Object(mut fields) if first && !has_network(&fields) => {
                let list = LISTS.iter().find_map(|name| fields.remove(*name));
                let Some(Value::Array(list)) = list else { return Err(no_list(line)) };
                list.iter().for_each(|value| take(line, value, reading));
            }
            value => take(line, &value, reading),
        }
        first = false;
        at.pass_white();
    }
    Ok(())
}

fn array(at: &mut Place<'_>, reading: &mut Reading) -> Result<(), ListFileError> {
    at.pass_white();
    if at.next() == Some(b']') {
        return Ok(());
    }
    loop {
        let (line, value) = at.value()?;
        take(line, &value, reading);
        at.pass_white();
        match at.next() {
            Some(b',') => at.advance(1),
            Some(b']') => return Ok(()),
            _ => return Err(at.form("a `,` or the `]` of the list is missing")),
        }
    }
}

fn take(line: u64, value: &Value, reading: &mut Reading) {
    match value {
        Value::String(network) => reading.take(line, network, None, None),
        Value::Object(fields) => {
            let text = |names: &[&str]| field(fields, names).and_then(Value::as_str);
            match text(&NETWORK) {
                Some(network) => reading.take(line, network, text(&REASON), text(&ENDS)),
                None => reading.refuse(line, &"the object has no text `network`"),
            }
        }
        _ => reading.refuse(line, &"an entry is a text, or an object with a text `network`"),
    }
}

fn field<'v>(fields: &'v Map<String, Value>, names: &[&str]) -> Option<&'v Value> {
    names.iter().find_map(|name| fields.get(*name))
}

fn has_network(fields: &Map<String, Value>) -> bool {
    field(fields, &NETWORK).is_some()
}

fn no_list(line: u64) -> ListFileError {
    let what = "the document is no list; write an array of networks, or objects with `network`";
    ListFileError::Form { line, what: what.to_owned() }
}

/// Where in the text the next value stands.
struct Place<'t> {
    text: &'t str,
    at: usize,
    line: u64,
}

impl Place<'_> {
    fn next(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn advance(&mut self, bytes: usize) {
        let passed = &self.text.as_bytes()[self.at..self.at + bytes];
        self.line += passed.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.at += bytes;
    }

    fn pass_white(&mut self) {
        let rest = &self.text.as_bytes()[self.at..];
        self.advance(rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count());
    }

    /// The next value and the line on which it begins.
    fn value(&mut self) -> Result<(u64, Value), ListFileError> {
        self.pass_white();
        let line = self.line;
        let mut values = serde_json::Deserializer::from_str(&self.text[self.at..]).into_iter();
        let value = match values.next() {
            Some(Ok(value)) => value,
            Some(Err(error)) => {
                let line = line + (error.line() as u64).saturating_sub(1);
                return Err(ListFileError::Form { line, what: format!("no JSON: {error}") });
            }
            None => return Err(self.form("the list does not end")),
        };
        let bytes = values.byte_offset();
        self.advance(bytes);
        Ok((line, value))
    }

    fn form(&self, what: &str) -> ListFileError {
        ListFileError::Form { line: self.line, what: what.to_owned() }
    }
}
