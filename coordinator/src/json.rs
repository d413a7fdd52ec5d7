//! JSON from outside, read with errors that say what, where and what to do instead.

use redrive_shared::error::{ErrorCode, Problem, suggest};
use redrive_shared::limits::JSON_MAX_DEPTH;
use serde::de::{DeserializeOwned, IgnoredAny};

/// Parses a batch as the API takes it. What serde says is turned into a stable code, a place and a suggestion.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    parse_as(bytes, Expected::Batch)
}

/// Parses one item of such a batch.
pub(crate) fn parse_item<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    parse_as(bytes, Expected::Item)
}

/// The deepest nesting of a JSON text.
pub(crate) fn depth(bytes: &[u8]) -> usize {
    Shape::of(bytes, Expected::Item).deepest
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Expected {
    Batch,
    Item,
}

fn parse_as<T: DeserializeOwned>(bytes: &[u8], expected: Expected) -> Result<T, Problem> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let detail = format!("byte {} does not belong to UTF-8 text; send UTF-8", error.valid_up_to());
        Problem::new(ErrorCode::InvalidUtf8, detail)
    })?;
    let shape = Shape::of(bytes, expected);
    if shape.deepest > JSON_MAX_DEPTH {
        let detail =
            format!("the JSON is nested more than {JSON_MAX_DEPTH} deep; flatten it, or send it as a string");
        return Err(Problem::new(ErrorCode::JsonTooDeep, detail));
    }
    if let Some(place) = shape.list_for_object {
        let detail = "an object with named fields belongs here, not a list";
        return Err(Problem::new(ErrorCode::InvalidValue, detail).at(place));
    }
    serde_json::from_str(text).map_err(|plain| {
        // Once more, keeping track of where: only those who err pay for it.
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let is_json = serde_json::from_str::<IgnoredAny>(text).is_ok();
        match serde_path_to_error::deserialize::<_, T>(&mut deserializer) {
            Err(error) => explain(error.inner(), is_json, error.path().to_string().trim_end_matches(".?")),
            Ok(_) => explain(&plain, is_json, ""),
        }
    })
}

fn explain(error: &serde_json::Error, is_json: bool, place: &str) -> Problem {
    let said = error.to_string();
    let problem = if !is_json {
        Problem::new(ErrorCode::MalformedJson, format!("{said}; the body must be one JSON document"))
    } else if !error.is_data() {
        // serde_json calls some values of a wrong kind (a number where a name is due) bad syntax.
        Problem::new(ErrorCode::InvalidValue, format!("the value here is of the wrong kind: {said}"))
    } else if let Some((field, known)) = unknown_field(&said) {
        let near = suggest(&field, known.iter().copied());
        let hint = near
            .map_or_else(|| format!("known: {}", known.join(", ")), |near| format!("did you mean `{near}`?"));
        Problem::new(ErrorCode::UnknownField, format!("there is no field `{field}` here; {hint}"))
    } else {
        Problem::new(ErrorCode::InvalidValue, said)
    };
    if place.is_empty() || place == "." { problem } else { problem.at(place) }
}

/// Takes serde's "unknown field `x`, expected one of `a`, `b`" apart.
pub(crate) fn unknown_field(said: &str) -> Option<(String, Vec<&str>)> {
    let rest = said.strip_prefix("unknown field `")?;
    let (field, rest) = rest.split_once('`')?;
    let known = rest.split(" at line ").next().unwrap_or(rest).split('`').skip(1).step_by(2).collect();
    Some((field.to_owned(), known))
}

/// What the brackets of a JSON text tell.
#[derive(Default)]
struct Shape {
    /// The deepest nesting.
    deepest: usize,
    /// The body, or an item of a batch, is a list: serde would take it for the object's fields in order, and no batch has a
    /// list directly in a list.
    list_for_object: Option<&'static str>,
}

impl Shape {
    fn of(bytes: &[u8], expected: Expected) -> Self {
        let mut shape = Self::default();
        if bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[') {
            shape.list_for_object = Some("body");
        }
        // What is open at the first three depths: an object, a batch in it, an item of that.
        let (mut depth, mut outer, mut at) = (0_usize, [0; 3], 0);
        while let Some(byte) = bytes.get(at) {
            at += 1;
            match byte {
                b'"' => at = end_of_string(bytes, at),
                b'{' | b'[' => {
                    if let Some(open) = outer.get_mut(depth) {
                        *open = *byte;
                    }
                    depth += 1;
                    shape.deepest = shape.deepest.max(depth);
                    if expected == Expected::Batch && depth == outer.len() && outer == *b"{[[" {
                        shape.list_for_object = Some("batch");
                    }
                }
                b'}' | b']' => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
        shape
    }
}

/// The place after a string that begins there; most of a body is strings.
fn end_of_string(bytes: &[u8], mut at: usize) -> usize {
    // Most are names of fields, over before a search with vectors would have begun.
    const SHORT_BYTES: usize = 12;
    let next = |rest: &[u8]| {
        let short = &rest[..rest.len().min(SHORT_BYTES)];
        let here = short.iter().position(|byte| matches!(byte, b'"' | b'\\'));
        here.or_else(|| Some(short.len() + memchr::memchr2(b'"', b'\\', &rest[short.len()..])?))
    };
    while let Some(next) = bytes.get(at..).and_then(next) {
        at += next + 1;
        if bytes[at - 1] == b'"' {
            return at;
        }
        // What follows a backslash ends nothing.
        at += 1;
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use redrive_shared::wire::{ClaimRequest, EnqueueRequest};

    use super::*;

    fn code_of<T: DeserializeOwned>(body: &[u8]) -> (ErrorCode, String, String) {
        let problem = parse::<T>(body).err().unwrap();
        (problem.code, problem.at.clone().unwrap_or_default(), problem.detail)
    }

    #[test]
    fn errors_say_what_where_and_what_instead() {
        let (code, at, detail) = code_of::<EnqueueRequest>(br#"{"tasks":[{"id":"a"},{"pririty":"high"}]}"#);
        assert_eq!((code, at.as_str()), (ErrorCode::UnknownField, "tasks[1].pririty"));
        assert!(detail.contains("did you mean `priority`"), "{detail}");

        let (code, at, _) = code_of::<EnqueueRequest>(br#"{"tasks":[{"priority":-1}]}"#);
        assert_eq!((code, at.as_str()), (ErrorCode::InvalidValue, "tasks[0].priority"));

        assert_eq!(code_of::<EnqueueRequest>(b"{\"tasks\":[").0, ErrorCode::MalformedJson);
        assert_eq!(code_of::<EnqueueRequest>(b"").0, ErrorCode::MalformedJson);
        assert_eq!(code_of::<EnqueueRequest>(b"{\"tasks\":[{\"id\":\"\xff\"}]}").0, ErrorCode::InvalidUtf8);
        assert_eq!(
            code_of::<ClaimRequest>(br#"{"agent":"a","queues":["q"],"max":-4}"#).0,
            ErrorCode::InvalidValue
        );
    }

    #[test]
    fn depth_ignores_what_is_in_strings() {
        assert_eq!(depth(br#"{"a":["[[[[", "\"[[", {}]}"#), 3);
        let long = br#"{"a":["a string that is longer than the names of fields: [[[[ \"[[ \\", {}]}"#;
        assert_eq!(depth(long), 3);
        assert_eq!(depth(br#"{"a": "an end that never comes [[[["#), 1);
        let deep = format!("{{\"tasks\":[{{\"payload\":{}{}}}]}}", "[".repeat(70), "]".repeat(70));
        assert_eq!(code_of::<EnqueueRequest>(deep.as_bytes()).0, ErrorCode::JsonTooDeep);
    }

    #[test]
    fn lists_do_not_pass_for_objects() {
        assert_eq!(code_of::<EnqueueRequest>(br#"{"tasks":[[]]}"#).0, ErrorCode::InvalidValue);
        assert_eq!(code_of::<EnqueueRequest>(br#" [[{}]] "#).0, ErrorCode::InvalidValue);
        assert_eq!(code_of::<EnqueueRequest>(b"{} [").0, ErrorCode::MalformedJson);
        assert_eq!(
            code_of::<EnqueueRequest>(br#"{"tasks":[{"id":"a","payload":[[1]]},["x"]]}"#).0,
            ErrorCode::InvalidValue
        );
        assert!(parse::<EnqueueRequest>(br#"{"tasks":[{"payload":[[[1]]]},{"payload":"[["}]}"#).is_ok());
    }

    #[test]
    fn payloads_are_moved_byte_for_byte() {
        let body = br#"{"tasks":[{"payload":{ "n" : 1.000,"u":"\u00e9" }}]}"#;
        let request: EnqueueRequest = parse(body).unwrap();
        let payload = request.tasks[0].payload.as_ref().unwrap();
        assert_eq!(payload.get(), r#"{ "n" : 1.000,"u":"\u00e9" }"#);
    }
}
