//! What a request asks of the upstream: its key, its script, and what to echo.

use serde_json::Value;

use super::http::{Head, Refusal, check_key};
use super::limits;
use super::reply::Step;

/// The model that answers when the request names none.
const DEFAULT_MODEL: &str = "flaky-1";

/// A request, understood as far as it can be.
#[derive(Debug)]
pub(super) struct Ask {
    pub key: String,
    pub task: Option<String>,
    pub attempt: Option<u32>,
    pub epoch: Option<u64>,
    pub model: String,
    pub input: Option<Value>,
    pub script: Vec<Step>,
    /// Why it is refused; it is logged all the same, and an outage comes first.
    pub fault: Option<Refusal>,
}

impl Ask {
    /// What can be known without a body. `connection` names those who name nothing.
    pub fn new(head: &Head, connection: u64) -> Self {
        Ask {
            key: head.idempotency_key.clone().unwrap_or_else(|| format!("connection:{connection}")),
            task: head.task.clone(),
            attempt: head.attempt,
            epoch: head.epoch,
            model: DEFAULT_MODEL.to_owned(),
            input: None,
            script: Vec::new(),
            fault: None,
        }
    }

    /// Adds what the body says, or why it cannot be understood.
    pub fn with_body(mut self, head: &Head, body: &[u8]) -> Self {
        let read = match head.method.as_str() {
            "POST" => self.read_body(head, body),
            _ => Err(Refusal::new(405, "send work with POST, to any path; GET serves /health and /log")),
        };
        self.fault = read.err();
        self
    }

    fn read_body(&mut self, head: &Head, body: &[u8]) -> Result<(), Refusal> {
        if body.trim_ascii().is_empty() {
            return Ok(());
        }
        let body: Value = serde_json::from_slice(body)
            .map_err(|error| Refusal::new(400, format!("the body is not JSON: {error}")))?;
        let Value::Object(mut body) = body else {
            // A tool's arguments may be any JSON; it just carries no script.
            return Ok(());
        };
        // The key first: even a request with a bad script is logged under its own name.
        if let (None, Some(key)) = (&head.idempotency_key, body.get("key")) {
            self.key = check_key(key.as_str(), "`key`")?.to_owned();
        }
        // A Redrive worker posts its whole task: what there is to do stands in the payload.
        if !body.contains_key("script")
            && let Some(Value::Object(payload)) = body.remove("payload")
        {
            body = payload;
        }
        if let Some(model) = body.get("model").and_then(Value::as_str) {
            self.model = model.chars().take(limits::KEY_BYTES_MAX).collect();
        }
        self.input = body.remove("input").filter(|input| input.to_string().len() <= limits::ECHO_BYTES_MAX);
        if let Some(script) = body.get("script") {
            self.script = read_script(script)?;
        }
        Ok(())
    }
}

/// The whole script is checked at once, so that a misspelt last step does not wait for its turn to be found.
fn read_script(script: &Value) -> Result<Vec<Step>, Refusal> {
    let steps = script.as_array().filter(|steps| steps.len() <= limits::SCRIPT_STEPS_MAX);
    let steps = steps.ok_or_else(|| {
        let message = format!("`script` must be an array of at most {} replies", limits::SCRIPT_STEPS_MAX);
        Refusal::new(400, message)
    })?;
    let read = |(index, step): (usize, &Value)| {
        let text = step.as_str().ok_or_else(|| Refusal::new(400, format!("script[{index}] is not text")))?;
        text.parse().map_err(|error| Refusal::new(400, format!("script[{index}]: {error}")))
    };
    steps.iter().enumerate().map(read).collect()
}
