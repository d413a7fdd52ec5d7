//! Reading what a store holds as JSON, though a newer release may have written it.
//!
//! Requests and files refuse what they do not know: somebody may have mistyped it. What lies in a store was checked when it came
//! in, and two releases may work on it side by side: the older one passes over what it does not know, and goes on with the rest.

use serde::de::DeserializeOwned;
use serde_json::{Error, Map, Value};

/// A part of a value that was passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Where it is: names of fields, from the outermost on. Empty: all of it.
    pub path: Vec<String>,
    /// What is there.
    pub value: Value,
    /// Whether this release does not know the field at all; otherwise it knows the field, and not what is in it.
    pub is_unknown: bool,
}

impl LeftOut {
    /// Its place, as people read it.
    pub fn place(&self) -> String {
        self.path.join(".")
    }
}

/// Reads a value, without those fields of its objects that do not fit.
///
/// # Errors
/// It is no JSON, or what fits of it is not enough.
pub fn read<T: DeserializeOwned>(text: &str) -> Result<(T, Vec<LeftOut>), Error> {
    let strictly = match serde_json::from_str(text) {
        Ok(value) => return Ok((value, Vec::new())),
        Err(error) => error,
    };
    let whole: Value = serde_json::from_str(text)?;
    let fits = |value: &Value| match serde_json::from_value::<T>(value.clone()) {
        Ok(_) => Ok(None),
        // That may still come.
        Err(error) if error.to_string().starts_with("missing field") => Ok(Some(error.to_string())),
        Err(error) => Err(error),
    };
    let mut left_out = Vec::new();
    let kept = keep(&whole, &mut Vec::new(), &fits, &mut left_out);
    match kept.map(serde_json::from_value) {
        Some(Ok(value)) => Ok((value, left_out)),
        Some(Err(_)) | None => Err(strictly),
    }
}

/// Puts what was left out back into a value of the same kind that was written since, where nothing else has its place.
pub fn put_back(value: &mut Value, left_out: &[LeftOut]) {
    for LeftOut { path, value: kept, .. } in left_out {
        let Some((name, above)) = path.split_last() else { continue };
        let object = above.iter().try_fold(&mut *value, |value, name| value.get_mut(name));
        if let Some(Value::Object(fields)) = object {
            fields.entry(name).or_insert_with(|| kept.clone());
        }
    }
}

/// Whether a value fits, and what is missing in it.
type Fits<'a> = &'a dyn Fn(&Value) -> Result<Option<String>, Error>;

/// What of a node fits into the whole.
fn keep(node: &Value, path: &mut Vec<String>, fits: Fits<'_>, left_out: &mut Vec<LeftOut>) -> Option<Value> {
    let Err(error) = fits(node) else { return Some(node.clone()) };
    let fields = match node {
        Value::Object(fields) if fits(&Value::Object(Map::new())).is_ok() => fields,
        _ => {
            let is_unknown = error.to_string().starts_with("unknown field");
            left_out.push(LeftOut { path: path.clone(), value: node.clone(), is_unknown });
            return None;
        }
    };
    // What names a variant is a text, and decides which fields there are.
    let (texts, others): (Vec<_>, Vec<_>) = fields.iter().partition(|(_, value)| value.is_string());
    let mut kept = Map::new();
    for (name, value) in texts.into_iter().chain(others) {
        let with = |value: &Value| {
            let mut object = kept.clone();
            object.insert(name.clone(), value.clone());
            fits(&Value::Object(object))
        };
        let before = left_out.len();
        path.push(name.clone());
        let mut part = keep(value, path, &with, left_out);
        if part.as_ref().is_some_and(|part| part.is_object() && is_incomplete(&kept, name, part, fits)) {
            // Too little is left of it, as of a strategy whose name is not known.
            left_out.truncate(before);
            left_out.push(LeftOut { path: path.clone(), value: value.clone(), is_unknown: false });
            part = None;
        }
        path.pop();
        kept.extend(part.map(|part| (name.clone(), part)));
    }
    Some(Value::Object(kept))
}

/// Whether something is missing inside a part, and not beside it.
fn is_incomplete(kept: &Map<String, Value>, name: &str, part: &Value, fits: Fits<'_>) -> bool {
    let missing = |fields: &Map<String, Value>| fits(&Value::Object(fields.clone())).ok().flatten();
    let mut with = kept.clone();
    with.insert(name.to_owned(), part.clone());
    let Some(said) = missing(&with) else { return false };
    if missing(kept).as_ref() == Some(&said) {
        return false;
    }
    // Were it missing beside the part, it would not be any more, if it were there.
    let field = said.split('`').nth(1).unwrap_or_default();
    with.entry(field).or_insert(Value::Null);
    missing(&with) == Some(said)
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::failure::FailureClass;
    use crate::retry::{RetryPolicy, Strategy};

    fn places(left_out: &[LeftOut]) -> Vec<String> {
        left_out.iter().map(LeftOut::place).collect()
    }

    #[test]
    fn a_policy_of_a_newer_release_is_read_as_far_as_it_is_known() {
        let text = r#"{"max_attempts": 7, "hedge": {"after_ms": 5}, "risk": "extreme",
            "strategy": {"strategy": "full_jitter", "base_ms": 60000, "spread": 2},
            "overrides": {
                "timeout": {"max_attempts": 2, "strategy": {"strategy": "quantum", "base_ms": 1}, "hedge": true},
                "asleep": {"max_attempts": 1}
            },
            "fallbacks": {"opus": ["sonnet"], "gpt": {"any": true}}}"#;
        assert!(serde_json::from_str::<RetryPolicy>(text).is_err(), "requests and files are strict");
        let (policy, left_out) = read::<RetryPolicy>(text).unwrap();
        let mut found = places(&left_out);
        found.sort();
        let expected = [
            "fallbacks.gpt",
            "hedge",
            "overrides.asleep",
            "overrides.timeout.hedge",
            "overrides.timeout.strategy",
            "risk",
            "strategy.spread",
        ];
        assert_eq!(found, expected);
        assert_eq!(policy.max_attempts, 7);
        assert!(matches!(policy.strategy, Strategy::FullJitter { base_ms: 60_000, .. }));
        let timeout = &policy.overrides[&FailureClass::Timeout];
        assert_eq!((timeout.max_attempts, &timeout.strategy), (Some(2), &None));
        assert_eq!(policy.fallbacks.len(), 1);
    }

    #[test]
    fn what_is_as_it_should_be_is_read_as_ever_and_what_is_no_json_is_not() {
        let policy = RetryPolicy { max_attempts: 9, ..RetryPolicy::default() };
        let text = serde_json::to_string(&policy).unwrap();
        assert_eq!(read::<RetryPolicy>(&text).unwrap(), (policy, Vec::new()));
        for text in ["", "{", "7", "\"policy\""] {
            assert!(read::<RetryPolicy>(text).is_err(), "{text}");
        }
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[serde(default)]
        count: u32,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        name: String,
        inner: Inner,
    }

    #[test]
    fn what_was_passed_over_is_put_back_into_what_is_written() {
        let text = r#"{"name": "n", "inner": {"count": 1, "later": [1, 2]}, "more": {"deep": true}}"#;
        let (mut outer, left_out) = read::<Outer>(text).unwrap();
        assert_eq!(outer, Outer { name: "n".into(), inner: Inner { count: 1 } });
        assert!(left_out.iter().all(|one| one.is_unknown));
        outer.inner.count = 5;
        let mut value = serde_json::to_value(&outer).unwrap();
        put_back(&mut value, &left_out);
        let expected = r#"{"name": "n", "inner": {"count": 5, "later": [1, 2]}, "more": {"deep": true}}"#;
        assert_eq!(value, serde_json::from_str::<Value>(expected).unwrap());
    }

    #[test]
    fn what_is_missing_or_has_another_meaning_is_told() {
        assert!(read::<Outer>(r#"{"inner": {}, "more": 1}"#).unwrap_err().to_string().contains("field"));
        assert!(read::<Outer>(r#"{"name": "n", "inner": 7, "more": 1}"#).is_err());
        let (outer, left_out) = read::<Outer>(r#"{"name": "n", "inner": {"count": "many"}}"#).unwrap();
        assert_eq!((outer.inner.count, left_out.len(), left_out[0].is_unknown), (0, 1, false));
    }
}
