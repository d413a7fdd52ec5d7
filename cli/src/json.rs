//! JSON that people wrote: objects only where objects are meant, and errors that say what to write instead.

use redrive_shared::error::suggest;
use serde::de::DeserializeOwned;

/// Reads one JSON object. Serde alone would read an array as an object's fields in order.
pub fn object<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    if !text.trim_start().starts_with('{') {
        return Err("not a JSON object: it must begin with {".to_owned());
    }
    value(text)
}

/// Reads any JSON.
pub fn value<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| {
        let said = error.to_string();
        // Most of it is on one line; then only the column tells anything.
        let said = said.replace(" at line 1 column ", " at column ");
        unknown_field(&said).unwrap_or(said)
    })
}

/// Serde's "unknown field `x`, expected one of `a`, `b`" with the closest one instead of all.
fn unknown_field(said: &str) -> Option<String> {
    let (field, rest) = said.strip_prefix("unknown field `")?.split_once('`')?;
    let (known, place) = rest.rsplit_once(" at ").unwrap_or((rest, ""));
    let near = suggest(field, known.split('`').skip(1).step_by(2))?;
    Some(format!("unknown field `{field}` at {place}; did you mean `{near}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use redrive_shared::failure::FailureSignal;
    use redrive_shared::wire::NewTask;

    #[test]
    fn only_objects_are_objects() {
        assert!(object::<NewTask>(" {\"queue\": \"a\"}").is_ok());
        for text in ["[\"a\"]", "null", "", "7"] {
            assert_eq!(object::<NewTask>(text).unwrap_err(), "not a JSON object: it must begin with {");
        }
    }

    #[test]
    fn errors_say_where_and_what_to_write() {
        assert_eq!(
            object::<FailureSignal>("{\"htp_status\": 429}").unwrap_err(),
            "unknown field `htp_status` at column 13; did you mean `http_status`?"
        );
        assert!(
            object::<NewTask>("{\"zzzzzzzzzz\": 1}").unwrap_err().contains("expected one of `id`, `queue`")
        );
        assert_eq!(
            object::<NewTask>("{\"queue\": \"a b\"}").unwrap_err(),
            "Name contains ' '; use letters, digits and - _ . : / @ + = ~ # at column 16"
        );
        assert!(object::<NewTask>("{\"queue\":\n1}").unwrap_err().ends_with("at line 2 column 1"));
    }
}
