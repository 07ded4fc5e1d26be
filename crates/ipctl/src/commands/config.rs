//! `ipctl config`.

use chrono::{DateTime, Utc};
use ipwarden_core::config::{Loaded, Source};
use serde::Serialize;
use serde_json::Value;

use super::rows::{plain, prose, untinted};
use crate::failure::Failure;
use crate::invocation::Invocation;
use crate::output::{Column, Format, Object, Row, Tint, clean};

pub(super) fn check(given: Invocation) -> Result<(), Failure> {
    let loaded = given.load()?;
    let sentence = match &loaded.file {
        Some(file) => format!("{} is good", file.display()),
        None => "no file was read; defaults and environment are good".to_owned(),
    };
    let checked = Checked {
        file: loaded.file.map(|file| file.display().to_string()),
        warnings: loaded.warnings,
    };
    Ok(given.out.one(&checked, || sentence)?)
}

pub(super) fn show(given: Invocation) -> Result<(), Failure> {
    let Loaded { config, sources, .. } = given.load()?;
    if matches!(given.out.format(), Format::Json | Format::Jsonl) {
        let text = serde_json::to_string(&config).map_err(anyhow::Error::from)?;
        return Ok(given.out.text(&text)?);
    }
    let mut settings = Vec::new();
    let tree = serde_json::to_value(&config).map_err(anyhow::Error::from)?;
    flatten("", &tree, &mut settings);
    let rows: Vec<Setting> = settings
        .into_iter()
        .map(|(key, value)| {
            let source = sources.get(&key).unwrap_or(&Source::Default).to_string();
            Setting { key, value, source }
        })
        .collect();
    Ok(given.out.rows(&rows, "")?)
}

/// The leaves of a tree by their dotted keys; lists are leaves.
fn flatten(prefix: &str, tree: &Value, settings: &mut Vec<(String, String)>) {
    let Value::Object(section) = tree else {
        let text = match tree {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            other => other.to_string(),
        };
        settings.push((prefix.to_owned(), text));
        return;
    };
    for (key, value) in section {
        let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        flatten(&key, value, settings);
    }
}

#[derive(Serialize)]
struct Checked {
    file: Option<String>,
    warnings: Vec<String>,
}

impl Object for Checked {
    const FIELDS: &'static [&'static str] = &["file", "warnings"];
}

#[derive(Serialize)]
struct Setting {
    key: String,
    value: String,
    source: String,
}

impl Object for Setting {
    const FIELDS: &'static [&'static str] = &["key", "value", "source"];
}

impl Row for Setting {
    const COLUMNS: &'static [Column] = &[plain("KEY"), prose("VALUE"), plain("SET BY")];

    fn cells(&self, _: DateTime<Utc>) -> Vec<(String, Tint)> {
        let value = if self.value.is_empty() { "-".to_owned() } else { clean(&self.value) };
        untinted([self.key.clone(), value, clean(&self.source)])
    }
}
