//! The layers of a configuration: defaults, the file, the environment, the command line.
//!
//! A section asks for its keys one by one; what nobody asked for is unknown. So the list of known
//! keys is the code that reads them. Problems are collected, not thrown: one run of
//! `ipctl config check` shows all.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::error::{ConfigError, Problem, Source};

/// A value as its layer holds it.
#[derive(Clone, Debug)]
pub(super) enum Raw {
    /// From the environment or a flag.
    Text(String),
    /// From the file.
    Toml(toml::Value),
}

/// The layers above the defaults, and what was found wrong in them.
#[derive(Debug, Default)]
pub(super) struct Layers {
    /// In front of every key in messages: `quotas[0].` for an element of a list.
    prefix: String,
    values: BTreeMap<String, (Raw, Source)>,
    asked: BTreeSet<String>,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<String>,
    pub(super) sources: BTreeMap<String, Source>,
}

/// Variables that are not keys.
const OTHER_VARIABLES: [&str; 2] = ["IPWARDEN_CONFIG", "IPWARDEN_VECTORS"];
const OTHER_PREFIX: &str = "IPWARDEN_TEST_";

/// Keys that have a well-known variable besides their own, which wins.
const WELL_KNOWN: [(&str, &str); 2] =
    [("database_url", "DATABASE_URL"), ("redis_url", "REDIS_URL")];

/// Keys whose value may be in a file that `<VARIABLE>_FILE` names.
const SECRETS: [&str; 3] = ["database_url", "redis_url", "gate.pass_secret"];

impl Layers {
    /// The layer of the file, from its text.
    pub(super) fn from_file(path: &Path, text: &str) -> Result<Layers, ConfigError> {
        let table = text.parse::<toml::Table>().map_err(|error| ConfigError::Syntax {
            path: path.to_owned(),
            message: place_and_message(text, &error),
        })?;
        let mut layers = Layers::default();
        layers.add_table("", table, &Source::File(path.to_owned()));
        Ok(layers)
    }

    fn add_table(&mut self, prefix: &str, table: toml::Table, source: &Source) {
        for (name, value) in table {
            let key = format!("{prefix}{name}");
            match value {
                toml::Value::Table(inner) => self.add_table(&format!("{key}."), inner, source),
                leaf => drop(self.values.insert(key, (Raw::Toml(leaf), source.clone()))),
            }
        }
    }

    /// Puts the environment over what is there. Which variables are ours is known only after the
    /// sections asked; see [`Layers::warn_of_unknown_variables`].
    pub(super) fn add_environment(
        &mut self,
        environment: &BTreeMap<String, String>,
    ) -> Result<(), ConfigError> {
        for (key, name) in WELL_KNOWN {
            self.add_variable(key, name, environment)?;
        }
        for (name, value) in environment {
            if let Some(key) = key_of(name) {
                let source = Source::Variable(name.clone());
                // A list with nothing in it is a value; anything else empty counts as not set, as
                // compose files write it.
                let raw = Raw::Text(value.clone());
                if !value.is_empty() || LISTS.contains(&key.as_str()) {
                    self.values.insert(key, (raw, source));
                }
            }
        }
        for key in SECRETS {
            self.add_variable(key, &variable_of(key), environment)?;
        }
        Ok(())
    }

    /// Takes `name` or the content of the file that `<name>_FILE` names.
    fn add_variable(
        &mut self,
        key: &str,
        name: &str,
        environment: &BTreeMap<String, String>,
    ) -> Result<(), ConfigError> {
        let get = |name: &str| environment.get(name).filter(|value| !value.is_empty()).cloned();
        let file_variable = format!("{name}_FILE");
        match (get(name), get(&file_variable)) {
            (Some(_), Some(_)) => self.problems.push(Problem {
                key: key.to_owned(),
                source: Source::Variable(name.to_owned()),
                message: format!("`{file_variable}` is set too: keep one of them"),
            }),
            (Some(value), None) => {
                let source = Source::Variable(name.to_owned());
                self.values.insert(key.to_owned(), (Raw::Text(value), source));
            }
            (None, Some(path)) => {
                let text =
                    std::fs::read_to_string(&path).map_err(|cause| ConfigError::Unreadable {
                        path: PathBuf::from(&path),
                        named_by: file_variable.clone(),
                        cause,
                    })?;
                // An editor ends a file with a line break, a secret does not.
                let text = text.trim_end_matches(['\r', '\n']).to_owned();
                let source = Source::Variable(file_variable);
                self.values.insert(key.to_owned(), (Raw::Text(text), source));
            }
            (None, None) => {}
        }
        Ok(())
    }

    /// Puts a flag of the command line over everything.
    pub(super) fn add_flag(&mut self, key: &str, value: &str) {
        self.values.insert(key.to_owned(), (Raw::Text(value.to_owned()), Source::Flag));
    }

    /// Reads `key`, or takes `default` when no layer has it or it is wrong.
    pub(super) fn value<T>(
        &mut self,
        key: &str,
        default: T,
        read: impl FnOnce(&Raw) -> Result<T, String>,
    ) -> T {
        self.asked.insert(key.to_owned());
        let Some((raw, source)) = self.values.get(key).cloned() else {
            self.sources.insert(format!("{}{key}", self.prefix), Source::Default);
            return default;
        };
        self.sources.insert(format!("{}{key}", self.prefix), source.clone());
        match read(&raw) {
            Ok(value) => value,
            Err(message) => {
                self.problem(key, source, message);
                default
            }
        }
    }

    /// Reads the tables of a list, such as `[[quotas]]`, each with `read`.
    pub(super) fn tables<T>(
        &mut self,
        key: &str,
        mut read: impl FnMut(&mut Layers) -> T,
    ) -> Vec<T> {
        let tables = self.value(key, Vec::new(), |raw| match raw {
            Raw::Toml(toml::Value::Array(elements)) => elements
                .iter()
                .map(|element| element.as_table().cloned())
                .collect::<Option<Vec<_>>>()
                .ok_or_else(|| format!("must be tables: write `[[{key}]]` above each")),
            Raw::Toml(_) => Err(format!("must be tables: write `[[{key}]]` above each")),
            Raw::Text(_) => Err("can only be set in the file".to_owned()),
        });
        let source = self.sources.get(key).cloned().unwrap_or_default();
        let mut values = Vec::with_capacity(tables.len());
        for (index, table) in tables.into_iter().enumerate() {
            let mut inner = Layers { prefix: format!("{key}[{index}]."), ..Layers::default() };
            inner.add_table("", table, &source);
            values.push(read(&mut inner));
            inner.refuse_unknown_keys();
            self.problems.append(&mut inner.problems);
        }
        values
    }

    /// Notes that `key` cannot be used, whoever set it.
    pub(super) fn refuse(&mut self, key: &str, message: String) {
        let source = self.sources.get(&format!("{}{key}", self.prefix)).cloned();
        self.problem(key, source.unwrap_or_default(), message);
    }

    fn problem(&mut self, key: &str, source: Source, message: String) {
        self.problems.push(Problem { key: format!("{}{key}", self.prefix), source, message });
    }

    /// Refuses what the file holds and no section asked for.
    pub(super) fn refuse_unknown_keys(&mut self) {
        let unknown: Vec<(String, Source)> = self
            .values
            .iter()
            .filter(|(key, (_, source))| {
                matches!(source, Source::File(_)) && !self.asked.contains(*key)
            })
            .map(|(key, (_, source))| (key.clone(), source.clone()))
            .collect();
        for (key, source) in unknown {
            let message = match self.nearest(&key) {
                Some(known) => format!("unknown key; did you mean `{}{known}`?", self.prefix),
                None => "unknown key; deploy/ipwarden.toml names all".to_owned(),
            };
            self.problem(&key, source, message);
        }
    }

    /// Only warns: a Kubernetes service called ipwarden injects `IPWARDEN_PORT` and the like.
    pub(super) fn warn_of_unknown_variables(&mut self, environment: &BTreeMap<String, String>) {
        for name in environment.keys() {
            let Some(key) = key_of(name) else { continue };
            let is_file =
                SECRETS.iter().any(|secret| *name == format!("{}_FILE", variable_of(secret)));
            if is_file || self.asked.contains(&key) {
                continue;
            }
            let hint =
                self.nearest(&key).map(|known| format!("; did you mean {}?", variable_of(known)));
            self.warnings.push(format!(
                "the environment variable {name} is no setting and is ignored{}",
                hint.unwrap_or_default()
            ));
        }
    }

    /// The known key that somebody may have meant.
    fn nearest(&self, key: &str) -> Option<&str> {
        let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
        self.asked
            .iter()
            .map(|known| {
                let distance = if last(known) == last(key) { 1 } else { edit_distance(known, key) };
                (distance, known)
            })
            .min()
            .filter(|(distance, known)| *distance <= 1 + known.len() / 4)
            .map(|(_, known)| known.as_str())
    }
}

/// Keys whose values are lists, where an empty variable is an empty list.
const LISTS: [&str; 3] = ["client_ip.trusted_proxies", "geo.files", "scan.sensitive_paths"];

/// `IPWARDEN_SCAN__MAX_REQUESTS` is `scan.max_requests`; `None` for what is not ours.
fn key_of(variable: &str) -> Option<String> {
    if OTHER_VARIABLES.contains(&variable) || variable.starts_with(OTHER_PREFIX) {
        return None;
    }
    let rest = variable.strip_prefix("IPWARDEN_")?;
    Some(rest.to_ascii_lowercase().replace("__", "."))
}

/// The variable of a key: `scan.max_requests` is `IPWARDEN_SCAN__MAX_REQUESTS`.
pub(super) fn variable_of(key: &str) -> String {
    format!("IPWARDEN_{}", key.to_ascii_uppercase().replace('.', "__"))
}

/// Not the line itself, which may hold a password.
fn place_and_message(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    format!("line {}: {}", before.matches('\n').count() + 1, error.message())
}

/// Levenshtein's distance in bytes.
fn edit_distance(left: &str, right: &str) -> usize {
    let right = right.as_bytes();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, from) in left.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}
