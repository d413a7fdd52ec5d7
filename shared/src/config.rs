//! Layered configuration: documented defaults ← file ← environment ← flags. The last layer that speaks wins, key by key.
//!
//! The defaults are a TOML text that documents every key, and nothing outside it can be set: an unknown key is refused
//! where it stands, with the closest known one. In that text
//!
//! * a table that is empty takes any keys (a map),
//! * an optional key, which has no default, is written `#key = example` with no space after the `#`,
//! * keys that end in `_ms` are whole milliseconds.
//!
//! An environment variable is `REDRIVE__SECTION__KEY`, with *double* underscores; `REDRIVE_URL` and its like are the
//! business of whoever reads them.

mod duration;
pub mod reader;
mod schema;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::{Table, Value};

pub use duration::{DurationError, format_duration_ms, parse_duration_ms};
use schema::Kind;

/// What every environment variable that sets a key starts with.
pub const ENVIRONMENT_PREFIX: &str = "REDRIVE__";

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In the file, on that line where it is known.
    File(PathBuf, Option<usize>),
    /// In that environment variable.
    Variable(String),
    /// On the command line.
    Flag,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, Some(line)) => write!(f, "{}:{line}", path.display()),
            Self::File(path, None) => write!(f, "{}", path.display()),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Flag => f.write_str("a command-line flag"),
        }
    }
}

/// Why a configuration is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file is not TOML.
    #[error("{place}: not valid TOML: {message}")]
    Syntax {
        /// File and line.
        place: Place,
        /// The parser's words.
        message: String,
    },
    /// A key that does not exist.
    #[error("{place}: unknown key `{key}`; {advice}")]
    UnknownKey {
        /// Where it stands.
        place: Place,
        /// The key as written, as a dotted path.
        key: String,
        /// `did you mean …?`, or where the keys are listed.
        advice: String,
    },
    /// A value of another type.
    #[error("{place}: `{key}` must be {expected}; it is {value}")]
    WrongType {
        /// Where it stands.
        place: Place,
        /// The key, as a dotted path.
        key: String,
        /// What to write.
        expected: &'static str,
        /// What was written.
        value: String,
    },
    /// A value of the right type that is refused all the same.
    #[error("{place}: `{key}` cannot be {value}: {message}")]
    Refused {
        /// Where it stands.
        place: Place,
        /// The key, as a dotted path.
        key: String,
        /// What was written.
        value: String,
        /// Why.
        message: String,
    },
    /// Something that no single key is to blame for.
    #[error("the configuration is not complete: {0}")]
    Incomplete(String),
    /// The built-in defaults cannot be read: a defect.
    #[error("the built-in defaults are broken: {0}")]
    Defaults(String),
}

/// One key that a layer sets.
#[derive(Debug, Clone)]
struct Setting {
    path: Vec<String>,
    value: Value,
    place: Place,
}

/// The layers on top of each other, and where each value that is not a default came from.
#[derive(Debug, Clone)]
pub struct Merged {
    defaults: Table,
    table: Table,
    settings: BTreeMap<Vec<String>, Setting>,
}

/// Merges the layers and reads them as `T`. See the module for the rules, [`ConfigError`] for what is refused.
pub fn load<T: DeserializeOwned>(
    default_toml: &str,
    file: Option<(&Path, &str)>,
    environment: impl Iterator<Item = (String, String)>,
    overrides: Table,
) -> Result<T, ConfigError> {
    merge(default_toml, file, environment, overrides)?.read()
}

/// Merges the layers, checking keys and types but not yet values. `file` is its path, for messages, and its text.
pub fn merge(
    default_toml: &str,
    file: Option<(&Path, &str)>,
    environment: impl Iterator<Item = (String, String)>,
    overrides: Table,
) -> Result<Merged, ConfigError> {
    let broken = |error: toml::de::Error| ConfigError::Defaults(error.to_string());
    let defaults: Table = default_toml.parse().map_err(broken)?;
    let complete: Table = schema::with_optional_keys(default_toml).parse().map_err(broken)?;
    let schema = Kind::of_table(&complete);

    let mut settings = Vec::new();
    if let Some((path, text)) = file {
        settings.extend(from_file(&schema, path, text)?);
    }
    settings.extend(from_environment(&schema, environment)?);
    collect(&schema, &schema, &overrides, &mut Vec::new(), &|_| Place::Flag, &mut settings)?;

    let mut merged = Merged { table: defaults.clone(), defaults, settings: BTreeMap::new() };
    for setting in settings {
        insert(&mut merged.table, &setting.path, Some(setting.value.clone()));
        merged.settings.insert(setting.path.clone(), setting);
    }
    Ok(merged)
}

impl Merged {
    /// The merged values.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Reads them as `T`. When that fails, the key to blame is the one whose way back to its default changes the failure.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        let error = match self.table.clone().try_into::<T>() {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        for (path, setting) in &self.settings {
            let mut without = self.table.clone();
            insert(&mut without, path, lookup(&self.defaults, path).cloned());
            if without.try_into::<T>().err().map(|e| e.to_string()) != Some(error.to_string()) {
                return Err(ConfigError::Refused {
                    place: setting.place.clone(),
                    key: path.join("."),
                    value: setting.value.to_string(),
                    message: error.message().trim_end().to_owned(),
                });
            }
        }
        Err(ConfigError::Incomplete(error.to_string().trim_end().replace('\n', " ")))
    }
}

fn from_file(schema: &Kind, path: &Path, text: &str) -> Result<Vec<Setting>, ConfigError> {
    let line_at = |offset: usize| text.bytes().take(offset).filter(|b| *b == b'\n').count() + 1;
    let syntax = |error: toml::de::Error| ConfigError::Syntax {
        place: Place::File(path.to_owned(), error.span().map(|span| line_at(span.start))),
        message: error.message().to_owned(),
    };
    let table: Table = toml::from_str(text).map_err(syntax)?;
    let spanned = toml::de::DeTable::parse(text).map_err(syntax)?;
    let place = |key: &[String]| {
        let mut line = None;
        let mut at = Some(spanned.get_ref());
        for part in key {
            let Some((found, value)) = at.and_then(|table| table.get_key_value(part.as_str())) else { break };
            line = Some(line_at(found.span().start));
            at = value.get_ref().as_table();
        }
        Place::File(path.to_owned(), line)
    };
    let mut settings = Vec::new();
    collect(schema, schema, &table, &mut Vec::new(), &place, &mut settings)?;
    Ok(settings)
}

fn from_environment(
    schema: &Kind,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<Vec<Setting>, ConfigError> {
    // Sorted, so that the same environment always gives the same first error.
    let variables: BTreeMap<String, String> =
        environment.filter(|(name, _)| name.starts_with(ENVIRONMENT_PREFIX)).collect();
    variables.into_iter().map(|(name, text)| from_variable(schema, name, &text)).collect()
}

fn from_variable(schema: &Kind, name: String, text: &str) -> Result<Setting, ConfigError> {
    let path: Vec<String> = name[ENVIRONMENT_PREFIX.len()..].split("__").map(str::to_lowercase).collect();
    let place = Place::Variable(name);
    let mut kind = schema;
    for part in &path {
        kind = match kind {
            Kind::Section(keys) => match keys.get(part) {
                Some(inner) => inner,
                None => return Err(unknown(schema, place, &path)),
            },
            Kind::Map if !part.is_empty() => {
                let value = schema::read_free(text);
                return Ok(Setting { path, value, place });
            }
            _ => return Err(unknown(schema, place, &path)),
        };
    }
    if let Kind::Section(_) = kind {
        return Err(unknown(schema, place, &path));
    }
    match kind.read(text) {
        Some(value) => Ok(Setting { path, value, place }),
        None => Err(wrong_type(kind, place, &path, &Value::String(text.to_owned()))),
    }
}

/// Walks a layer's table along the schema and collects what it sets. `whole` is the schema's root, for suggestions.
fn collect(
    whole: &Kind,
    kind: &Kind,
    table: &Table,
    path: &mut Vec<String>,
    place: &dyn Fn(&[String]) -> Place,
    into: &mut Vec<Setting>,
) -> Result<(), ConfigError> {
    for (key, value) in table {
        path.push(key.clone());
        let known = match kind {
            Kind::Section(keys) => keys.get(key),
            _ => None,
        };
        match (kind, known, value) {
            (Kind::Map, _, _) => {
                into.push(Setting { path: path.clone(), value: value.clone(), place: place(path) });
            }
            (_, None, _) => return Err(unknown(whole, place(path), path)),
            (_, Some(inner @ (Kind::Section(_) | Kind::Map)), Value::Table(table)) => {
                collect(whole, inner, table, path, place, into)?;
            }
            (_, Some(inner), value) if inner.accepts(value) => {
                into.push(Setting { path: path.clone(), value: value.clone(), place: place(path) });
            }
            (_, Some(inner), value) => return Err(wrong_type(inner, place(path), path, value)),
        }
        path.pop();
    }
    Ok(())
}

fn unknown(schema: &Kind, place: Place, path: &[String]) -> ConfigError {
    let as_written = |key: &str| match &place {
        Place::Variable(_) => format!("{ENVIRONMENT_PREFIX}{}", key.to_uppercase().replace('.', "__")),
        Place::File(..) | Place::Flag => format!("`{key}`"),
    };
    let advice = match schema.suggest(path) {
        Some(key) => format!("did you mean {}?", as_written(&key)),
        None => "`redrive config` lists every key".to_owned(),
    };
    ConfigError::UnknownKey { key: path.join("."), advice, place }
}

fn wrong_type(kind: &Kind, place: Place, path: &[String], value: &Value) -> ConfigError {
    let key = path.join(".");
    ConfigError::WrongType { expected: kind.expected(&key), value: value.to_string(), key, place }
}

fn lookup<'a>(table: &'a Table, path: &[String]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    let value = table.get(first)?;
    if rest.is_empty() { Some(value) } else { lookup(value.as_table()?, rest) }
}

/// Sets a key, making the tables on the way, or removes it.
fn insert(table: &mut Table, path: &[String], value: Option<Value>) {
    match path {
        [] => {}
        [last] => match value {
            Some(value) => drop(table.insert(last.clone(), value)),
            None => drop(table.remove(last)),
        },
        [first, rest @ ..] => {
            let inner = table.entry(first.clone()).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}

#[cfg(test)]
mod tests;
