//! From policies to the file.

use std::fmt::Write as _;

use redrive_shared::wire::QueueView;
use serde_json::Value;

use super::settings::{CLASS, QUEUE, STRATEGY, Setting};

/// The file of what is in force: every setting of every queue, and of its classes what the queue says itself.
pub fn write(queues: &[QueueView]) -> serde_json::Result<String> {
    let mut text = "# What is in force. docs/policies.md says what each setting does; `redrive queues apply` reads it back.\n".to_owned();
    for queue in queues {
        let policy = serde_json::to_value(&queue.policy)?;
        let path = format!("queues.{}", key(&queue.name));
        let version = format!("# version {}", queue.version);
        text.push_str(&format!("\n[{path}]  {version}\n"));
        settings(&mut text, QUEUE, &policy);
        strategy(&mut text, &policy);
        for (class, rule) in policy["overrides"].as_object().into_iter().flatten() {
            text.push_str(&format!("\n[{path}.classes.{class}]\n"));
            settings(&mut text, CLASS, rule);
            strategy(&mut text, rule);
        }
    }
    Ok(text)
}

fn settings(text: &mut String, settings: &[Setting], values: &Value) {
    for setting in settings {
        if let Some(value) = values.get(setting.field) {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{} = {}", setting.key, setting.toml(value));
        }
    }
}

fn strategy(text: &mut String, values: &Value) {
    if let Some(strategy) = values.get("strategy") {
        let _ = writeln!(text, "strategy = {}", strategy["strategy"]);
        settings(text, STRATEGY, strategy);
    }
}

/// A name as a key of TOML.
fn key(name: &str) -> String {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    // Names have neither quotes nor backslashes.
    if name.bytes().all(bare) { name.to_owned() } else { format!("\"{name}\"") }
}
