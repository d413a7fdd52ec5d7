//! Which keys exist and what they hold, read from the documented defaults: one file is documentation, defaults and
//! schema, so they cannot disagree.

use std::collections::BTreeMap;

use toml::{Table, Value};

use crate::error::suggest;

/// What a key holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Integer,
    Float,
    Bool,
    List,
    Moment,
    /// Keys that are all known.
    Section(BTreeMap<String, Kind>),
    /// A table that is empty in the defaults: any keys.
    Map,
}

impl Kind {
    pub(super) fn of(value: &Value) -> Self {
        match value {
            Value::String(_) => Self::Text,
            Value::Integer(_) => Self::Integer,
            Value::Float(_) => Self::Float,
            Value::Boolean(_) => Self::Bool,
            Value::Datetime(_) => Self::Moment,
            Value::Array(_) => Self::List,
            Value::Table(table) if table.is_empty() => Self::Map,
            Value::Table(table) => Self::of_table(table),
        }
    }

    pub(super) fn of_table(table: &Table) -> Self {
        Self::Section(table.iter().map(|(key, value)| (key.clone(), Self::of(value))).collect())
    }

    /// Whether a value of that kind may stand where this one is expected.
    pub(super) fn accepts(&self, value: &Value) -> bool {
        match self {
            Self::Text => value.is_str(),
            Self::Integer => value.is_integer(),
            Self::Float => value.is_float() || value.is_integer(),
            Self::Bool => value.is_bool(),
            Self::List => value.is_array(),
            Self::Moment => value.is_datetime(),
            Self::Section(_) | Self::Map => value.is_table(),
        }
    }

    /// What to write, for an error about `key`.
    pub(super) fn expected(&self, key: &str) -> &'static str {
        match self {
            Self::Integer if key.ends_with("_ms") => "a whole number of milliseconds, such as 5000",
            Self::Integer => "a whole number, such as 4",
            Self::Text => "a string, such as \"text\"",
            Self::Float => "a number, such as 0.5",
            Self::Bool => "true or false",
            Self::List => "a list, such as [\"a\", \"b\"]",
            Self::Moment => "a date and time, such as 2026-01-31T12:00:00Z",
            Self::Section(_) | Self::Map => "a table of keys",
        }
    }

    /// Reads the text of an environment variable, which has no types of its own. None: it is not of this kind.
    pub(super) fn read(&self, text: &str) -> Option<Value> {
        let as_toml = || parse_value(text);
        match self {
            Self::Text => Some(Value::String(text.to_owned())),
            // `a,b` is how lists are written in a shell; `["a"]` works too.
            Self::List => as_toml().filter(Value::is_array).or_else(|| {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                Some(Value::Array(items.map(|item| Value::String(item.to_owned())).collect()))
            }),
            Self::Integer | Self::Float | Self::Bool | Self::Moment | Self::Section(_) | Self::Map => {
                as_toml().filter(|value| self.accepts(value))
            }
        }
    }

    /// The closest known key to an unknown one, as a dotted path: among its neighbours, else the same name elsewhere.
    pub(super) fn suggest(&self, path: &[String]) -> Option<String> {
        let (last, parents) = path.split_last()?;
        let mut here = self;
        for (depth, parent) in parents.iter().enumerate() {
            let Self::Section(keys) = here else { return None };
            match keys.get(parent) {
                Some(kind) => here = kind,
                None => {
                    let section = suggest(parent, keys.keys().map(String::as_str))?;
                    let mut better = path.to_vec();
                    section.clone_into(&mut better[depth]);
                    return Some(better.join("."));
                }
            }
        }
        // A section's own name, where one of its keys was meant.
        if let Self::Section(keys) = here
            && let Some(section @ Self::Section(_)) = keys.get(last)
        {
            let mut inside = Vec::new();
            section.leaves(&mut path.to_vec(), &mut inside);
            return inside.into_iter().next();
        }
        if let Self::Section(keys) = here
            && let Some(key) = suggest(last, keys.keys().map(String::as_str))
        {
            return Some(parents.iter().map(String::as_str).chain([key]).collect::<Vec<_>>().join("."));
        }
        let mut all = Vec::new();
        self.leaves(&mut Vec::new(), &mut all);
        all.into_iter().find(|path| path.rsplit('.').next() == Some(last))
    }

    /// Every key that can be set, as dotted paths.
    fn leaves(&self, at: &mut Vec<String>, into: &mut Vec<String>) {
        match self {
            Self::Section(keys) => {
                for (key, kind) in keys {
                    at.push(key.clone());
                    kind.leaves(at, into);
                    at.pop();
                }
            }
            _ => into.push(at.join(".")),
        }
    }
}

fn parse_value(text: &str) -> Option<Value> {
    format!("v = {text}").parse::<Table>().ok().filter(|table| table.len() == 1)?.remove("v")
}

/// Reads the text of a variable that sets a key of a map: as TOML if it is some, else as a string.
pub(super) fn read_free(text: &str) -> Value {
    parse_value(text).unwrap_or_else(|| Value::String(text.to_owned()))
}

/// The defaults with their optional keys set to their examples. An optional key has no default: it stands in the file as
/// `#key = example`, with no space after the `#`, where prose has one.
pub(super) fn with_optional_keys(default_toml: &str) -> String {
    let optional = |line: &str| {
        let (key, _) = line.strip_prefix('#')?.split_once(" = ")?;
        let named = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        named.then(|| line[1..].to_owned())
    };
    default_toml.lines().map(|line| optional(line).unwrap_or_else(|| line.to_owned()) + "\n").collect()
}
