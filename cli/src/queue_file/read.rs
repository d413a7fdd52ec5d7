//! From the file to policies. Everything that is wrong is told at once, each with its line.

use redrive_shared::config::format_duration_ms;
use redrive_shared::config::reader::{Document, Mistake, Mistakes, Reader, Source};
use redrive_shared::error::suggest;
use redrive_shared::failure::FailureClass;
use redrive_shared::id::Name;
use redrive_shared::limits::BATCH_MAX_ITEMS;
use redrive_shared::retry::{PolicyError, RetryPolicy, Strategy};
use serde_json::{Map, Value};

use super::settings::{CLASS, Kind, QUEUE, STRATEGY, Setting};

/// Largest file: hundreds of times what a thousand queues with all their settings take.
pub const FILE_MAX_BYTES: usize = 4 * 1024 * 1024;

/// A queue of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub name: Name,
    pub policy: RetryPolicy,
    /// What is within all bounds and can hardly be meant. It stands in nobody's way where it is in force already: what was
    /// exported can be applied.
    pub contradictions: Vec<Mistake>,
}

/// Reads a file; `file` is its name, for messages. Fails with everything that is wrong, in the order of its lines.
pub fn parse(file: &str, text: &str) -> Result<Vec<Entry>, Vec<Mistake>> {
    let source = Source { file, text };
    if text.len() > FILE_MAX_BYTES {
        return Err(vec![
            source.error(None, format!("has more than the {FILE_MAX_BYTES} bytes that are read")),
        ]);
    }
    let document = Document::parse(source)?;
    let (mut top, mut mistakes) = (document.reader(), Mistakes::default());
    let mut entries = Vec::new();
    match mistakes.take(top.table("queues")) {
        Some(mut queues) => {
            let names: Vec<&str> = queues.keys().collect();
            if names.len() > BATCH_MAX_ITEMS {
                let said = format!("has {} queues; apply up to {BATCH_MAX_ITEMS} at a time", names.len());
                return Err(vec![top.error("queues", said)]);
            }
            for name in names {
                if let Some(mut table) = mistakes.take(queues.table(name)) {
                    entries.extend(read_entry(name, &queues, &mut table, &mut mistakes));
                }
            }
        }
        None if top.has("queues") || top.keys().next().is_some() => {}
        None => {
            let missing = top.refuse("queues", "a table for each queue, such as [queues.default]");
            mistakes.take::<()>(missing);
        }
    }
    mistakes.extend(top.unknown(|_, _| None));
    let mistakes = mistakes.in_order();
    if mistakes.is_empty() { Ok(entries) } else { Err(mistakes) }
}

fn read_entry(
    name: &str,
    queues: &Reader<'_>,
    table: &mut Reader<'_>,
    mistakes: &mut Mistakes,
) -> Option<Entry> {
    let given = Value::Object(read_queue(table, mistakes));
    let name = match Name::new(name) {
        Ok(name) => name,
        Err(error) => {
            mistakes.push(queues.error(name, format!("is no name for a queue: it {error}")));
            return None;
        }
    };
    let policy = match serde_json::from_value::<RetryPolicy>(given.clone()) {
        Ok(policy) => policy,
        Err(error) => {
            mistakes.push(queues.error(&name, format!("cannot be read: {error}")));
            return None;
        }
    };
    mistakes.extend(explained(table, &given, policy.problems()));
    let contradictions = explained(table, &given, policy.contradictions());
    Some(Entry { name, policy, contradictions })
}

/// What a queue's table gives, as JSON. What is refused is left out.
fn read_queue(table: &mut Reader<'_>, mistakes: &mut Mistakes) -> Map<String, Value> {
    let mut given = read_settings(QUEUE, table, mistakes);
    if let Some(strategy) = read_strategy(table, mistakes) {
        given.insert("strategy".to_owned(), strategy);
    }
    if let Some(mut classes) = mistakes.take(table.table("classes")) {
        given.insert("overrides".to_owned(), Value::Object(read_classes(&mut classes, mistakes)));
    }
    mistakes.extend(table.unknown(|key, value| match key {
        "overrides" => Some(format!("write [{}.CLASS]", table.path_of("classes"))),
        "paused" => Some("pausing is no part of a policy: `redrive queues pause NAME` does it".to_owned()),
        _ => with_unit(key, value, &[QUEUE, STRATEGY]),
    }));
    given
}

fn read_settings(
    settings: &[Setting],
    table: &mut Reader<'_>,
    mistakes: &mut Mistakes,
) -> Map<String, Value> {
    let mut read =
        |setting: &Setting| mistakes.take(setting.read(table)).map(|value| (setting.field.to_owned(), value));
    settings.iter().filter_map(&mut read).collect()
}

fn read_classes(classes: &mut Reader<'_>, mistakes: &mut Mistakes) -> Map<String, Value> {
    let mut given = Map::new();
    for key in classes.keys().collect::<Vec<_>>() {
        if FailureClass::parse(key).is_none() {
            let known = FailureClass::ALL.map(FailureClass::as_str);
            let advice = suggest(key, known).map_or_else(
                || format!("there are {}", known.join(", ")),
                |near| format!("did you mean `{near}`?"),
            );
            mistakes.push(classes.error(key, format!("is no failure class; {advice}")));
            continue;
        }
        let Some(mut table) = mistakes.take(classes.table(key)) else { continue };
        let mut class = read_settings(CLASS, &mut table, mistakes);
        if let Some(strategy) = read_strategy(&mut table, mistakes) {
            class.insert("strategy".to_owned(), strategy);
        }
        mistakes.extend(table.unknown(|key, value| with_unit(key, value, &[STRATEGY])));
        given.insert(key.to_owned(), Value::Object(class));
    }
    given
}

/// A strategy by its name with its settings beside it, or in a table of its own.
fn read_strategy(table: &mut Reader<'_>, mistakes: &mut Mistakes) -> Option<Value> {
    let is_table = match table.value("strategy") {
        Some(value) if !value.is_table() => return read_named(table, mistakes),
        given => given.is_some(),
    };
    let advice = if is_table {
        format!("belongs into the strategy's own table, [{}]", table.path_of("strategy"))
    } else {
        "means nothing without a strategy; write strategy = \"full_jitter\" beside it".to_owned()
    };
    for setting in STRATEGY {
        if table.value(setting.key).is_some() {
            mistakes.push(table.error(setting.key, &advice));
        }
    }
    let mut own = mistakes.take(table.table("strategy"))?;
    let strategy = read_named(&mut own, mistakes);
    mistakes.extend(own.unknown(|key, value| with_unit(key, value, &[STRATEGY])));
    strategy
}

fn read_named(table: &mut Reader<'_>, mistakes: &mut Mistakes) -> Option<Value> {
    let read = match table.word("strategy", &Strategy::NAMES) {
        Ok(None) => table.refuse("strategy", "the strategy's name, such as \"full_jitter\""),
        read => read,
    };
    let Some(name) = mistakes.take(read) else {
        // Whether they are right depends on its name.
        for setting in STRATEGY {
            let _ = table.value(setting.key);
        }
        return None;
    };
    let mut given = Map::from_iter([("strategy".to_owned(), Value::from(name))]);
    // What it has is what its defaults say.
    let whole =
        serde_json::from_value::<Strategy>(given.clone().into()).and_then(serde_json::to_value).ok()?;
    let (its, others): (Vec<&Setting>, Vec<&Setting>) =
        STRATEGY.iter().partition(|setting| whole.get(setting.field).is_some());
    for setting in &its {
        if let Some(value) = mistakes.take(setting.read(table)) {
            given.insert(setting.field.to_owned(), value);
        }
    }
    for setting in others {
        if table.value(setting.key).is_some() {
            let keys: Vec<String> = its.iter().map(|setting| format!("`{}`", setting.key)).collect();
            let said = format!("is no setting of \"{name}\", which has {}", keys.join(", "));
            mistakes.push(table.error(setting.key, said));
        }
    }
    Some(Value::Object(given))
}

/// What to write in place of a duration that is named as in JSON.
fn with_unit(key: &str, value: &toml::Value, settings: &[&[Setting]]) -> Option<String> {
    let setting = settings.iter().copied().flatten().find(|setting| setting.field == key)?;
    let ms = value.as_integer().and_then(|ms| u64::try_from(ms).ok()).map(format_duration_ms);
    let example = match setting.kind {
        Kind::Durations => "[\"5s\", \"5m\"]".to_owned(),
        _ => format!("\"{}\"", ms.as_deref().unwrap_or("30s")),
    };
    (setting.key != key).then(|| format!("durations have units here: write `{} = {example}`", setting.key))
}

/// What the policy's own checks say, with the lines and the names of the file. What only follows from something that was
/// refused before is left out.
fn explained(table: &Reader<'_>, given: &Value, errors: Vec<PolicyError>) -> Vec<Mistake> {
    let explain = |error: PolicyError| {
        let (field, other) = error.fields();
        let mut line = None;
        for field in std::iter::once(field).chain(other) {
            let written = Place::of(field).line(table);
            if written.is_some() && given.pointer(&pointer(field)).is_none() {
                return None;
            }
            line = line.or(written);
        }
        let line = line.or_else(|| Place::of(field).line_around(table));
        let named = error.renamed(|field| format!("`{}`", table.path_of(&Place::of(field).name(table))));
        Some((line.is_some(), table.error_at(line.unwrap_or(table.line()), named.to_string())))
    };
    let found: Vec<(bool, Mistake)> = errors.into_iter().filter_map(explain).collect();
    // A default that is wrong follows from what was written: the retention from a deadline.
    let any_written = found.iter().any(|(written, _)| *written);
    found.into_iter().filter(|(written, _)| *written || !any_written).map(|(_, mistake)| mistake).collect()
}

/// `overrides.timeout.strategy.delays_ms[1]` as a JSON pointer, without the index.
fn pointer(field: &str) -> String {
    parts(field.split('[').next().unwrap_or(field))
        .iter()
        .flat_map(|part| ["/".to_owned(), part.replace('~', "~0").replace('/', "~1")])
        .collect()
}

/// The parts of a path. What names a chain is a dependency, which may have dots of its own.
fn parts(path: &str) -> Vec<&str> {
    match path.split_once('.') {
        Some(("fallbacks", primary)) => vec!["fallbacks", primary],
        _ => path.split('.').collect(),
    }
}

/// Where a field of the policy may stand in a queue's table.
struct Place<'a> {
    /// The keys on the way, with a table for the strategy.
    keys: Vec<&'a str>,
    /// The index in a list, as written.
    index: &'a str,
}

impl<'a> Place<'a> {
    fn of(field: &'a str) -> Self {
        let (path, index) = field.split_at(field.find('[').unwrap_or(field.len()));
        let all = || QUEUE.iter().chain(CLASS).chain(STRATEGY);
        let key = |part| match part {
            "overrides" => "classes",
            part => all().find(|setting| setting.field == part).map_or(part, |setting| setting.key),
        };
        Self { keys: parts(path).into_iter().map(key).collect(), index }
    }

    /// The same with the strategy's settings beside its name.
    fn beside(&self) -> Vec<&'a str> {
        let last = self.keys.len().saturating_sub(1);
        let is_table = |(place, key): &(usize, &&str)| **key == "strategy" && *place < last;
        self.keys.iter().enumerate().filter(|part| !is_table(part)).map(|(_, key)| *key).collect()
    }

    fn line(&self, table: &Reader<'_>) -> Option<usize> {
        table.line_of(&self.keys).or_else(|| table.line_of(&self.beside()))
    }

    /// The line of the innermost table around it that was written: names with dots in them cut a path short.
    fn line_around(&self, table: &Reader<'_>) -> Option<usize> {
        (1..self.keys.len()).rev().find_map(|length| table.line_of(&self.keys[..length]))
    }

    fn name(&self, table: &Reader<'_>) -> String {
        let keys = if table.line_of(&self.keys).is_some() { self.keys.clone() } else { self.beside() };
        keys.join(".") + self.index
    }
}
