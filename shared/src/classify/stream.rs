//! Streams and bodies that stop in the middle.

use super::evidence::Evidence;
use crate::failure::FailureClass;

/// Marks of an event stream of any provider's dialect.
const EVENT_MARKS: &[&str] = &[
    "data: {",
    "data:{",
    "\"message_start\"",
    "\"content_block_delta\"",
    "\"chat.completion.chunk\"",
    "\"response.output_text.delta\"",
    "\"response.created\"",
    "\"response.in_progress\"",
    "\"type\":\"text-delta\"",
];

/// Any of these means that the server had said all it wanted to say.
const ENDINGS: &[&str] = &[
    "message_stop",
    "[DONE]",
    "response.completed",
    "response.incomplete",
    "response.failed",
    "response.cancelled",
    "\"finish_reason\":\"",
    "\"finish_reason\": \"",
    "\"finishReason\":\"",
    "\"finishReason\": \"",
    "\"done\":true",
    "\"done\": true",
    "\"is_finished\":true",
    "message-end",
    "\"messageStop\"",
];

/// `PartialResponse` where a successful response is an event stream without its last event, or JSON without its end.
pub(super) fn broken_off(evidence: &Evidence) -> Option<FailureClass> {
    if evidence.status.is_some_and(|status| status >= 400) {
        return None;
    }
    let body = evidence.body.as_deref()?.trim();
    let is_stream = EVENT_MARKS.iter().any(|mark| body.contains(mark));
    let broken = if is_stream {
        !ENDINGS.iter().any(|ending| body.contains(ending))
    } else {
        evidence.status == Some(200) && (body.is_empty() || is_cut_json(body))
    };
    broken.then_some(FailureClass::PartialResponse)
}

/// `BadOutput` where a whole answer has nothing in it.
pub(super) fn empty_answer(evidence: &Evidence) -> Option<FailureClass> {
    let body = evidence.body.as_deref().filter(|_| evidence.status == Some(200))?;
    let start: String = body.chars().take(4096).filter(|c| !c.is_whitespace()).collect();
    let nobody = ["\"choices\":[]", "\"candidates\":[]"].iter().any(|mark| start.contains(mark));
    let nothing =
        ["\"content\":null", "\"content\":\"\"", "\"parts\":[]"].iter().any(|mark| start.contains(mark));
    let ended = ["_reason\":\"stop\"", "finishReason\":\"STOP\""].iter().any(|mark| start.contains(mark));
    let calls = ["\"tool_calls\":[{", "\"function_call\":{", "\"functionCall\":{"]
        .iter()
        .any(|mark| start.contains(mark));
    let empty = nobody || (nothing && ended && !calls);
    empty.then_some(FailureClass::BadOutput)
}

fn is_cut_json(body: &str) -> bool {
    body.starts_with(['{', '['])
        && serde_json::from_str::<serde::de::IgnoredAny>(body).is_err_and(|error| error.is_eof())
}
