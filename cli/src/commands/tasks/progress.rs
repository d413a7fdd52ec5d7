//! How far a task came.

use indicatif::HumanBytes;
use redrive_shared::checkpoint::{Progress, Step};
use redrive_shared::id::TaskId;
use redrive_worker::client::Client;

use crate::context::Context;
use crate::output::{Rows, excerpt, from_now, printable};

const STATE_SHOWN_CHARS: usize = 80;

/// Prints it: the document for machines, or its steps for those that want the states, and a table for people.
pub(super) async fn print(
    client: &Client,
    context: &Context,
    id: &TaskId,
    steps: bool,
) -> anyhow::Result<()> {
    let output = &context.output;
    if output.json && steps {
        return output.value(&client.progress(id).await?);
    }
    let document = client.progress_document(id).await?;
    if output.json {
        return output.value(&document);
    }
    let progress = client.progress(id).await?;
    let now_ms = context.now_ms();
    output.line(format!("{}  {}: {}", output.strong(id), document.status, summary(&progress, now_ms)))?;
    if let Some(error) = &document.last_error {
        output.line(format!("  last error, of {}: {}", document.retry_count, printable(error)))?;
    }
    if progress.steps.is_empty() && progress.pending.is_empty() {
        return Ok(());
    }
    let rows = table(&progress, now_ms);
    Ok(output.table(if steps { rows } else { rows.without(STATE_COLUMN) })?)
}

/// In one line.
pub(super) fn summary(progress: &Progress, now_ms: i64) -> String {
    let done = progress.steps.iter().filter(|step| step.completed).count();
    let begun = progress.steps.len() - done;
    let Some(saved_at_ms) = progress.saved_at_ms() else { return "nothing saved yet".to_owned() };
    let mut parts = vec![format!("{done} {} done", if done == 1 { "step" } else { "steps" })];
    if begun > 0 {
        parts.push(format!("{begun} begun"));
    }
    let to_come = progress.pending.iter().filter(|name| progress.step(name).is_none()).count();
    if to_come > 0 {
        parts.push(format!("{to_come} to come"));
    }
    format!("{}; saved {}", parts.join(", "), from_now(saved_at_ms, now_ms))
}

const STATE_COLUMN: usize = 5;

fn table(progress: &Progress, now_ms: i64) -> Rows {
    let mut rows = Rows::new(["STEP", "DONE", "SEQ", "SAVED", "SIZE", "STATE"]).right([2, 4]);
    for step in &progress.steps {
        let size = size(step);
        rows.push([
            (&step.step).into(),
            if step.completed { "yes" } else { "begun" }.into(),
            step.seq.into(),
            from_now(step.saved_at_ms, now_ms).into(),
            size.into(),
            state(step).into(),
        ]);
    }
    for name in progress.pending.iter().filter(|name| progress.step(name).is_none()) {
        rows.push([name.into(), "to come".into(), "-".into(), "-".into(), "-".into(), "-".into()]);
    }
    rows
}

fn size(step: &Step) -> String {
    match (&step.state, &step.state_ref) {
        (_, Some(blob)) => HumanBytes(blob.bytes).to_string(),
        (Some(_), None) => HumanBytes(step.inline_bytes() as u64).to_string(),
        (None, None) => "-".to_owned(),
    }
}

fn state(step: &Step) -> String {
    match (&step.state, &step.state_ref) {
        (_, Some(blob)) => format!("blob {}", blob.blob),
        (Some(state), None) => excerpt(state.get(), STATE_SHOWN_CHARS),
        (None, None) => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use redrive_shared::checkpoint::Checkpoint;
    use redrive_shared::id::Name;

    use super::*;

    #[test]
    fn what_is_done_begun_and_to_come_is_told() {
        let name = |text: &str| Name::new(text).unwrap();
        let mut progress = Progress::default();
        assert_eq!(summary(&progress, 0), "nothing saved yet");
        let pending = Some(["parse", "write"].map(name).to_vec());
        let fetch = Checkpoint { seq: 1, step: name("fetch"), completed: true, state: None, pending };
        let parse = Checkpoint { seq: 2, step: name("parse"), completed: false, state: None, pending: None };
        progress.save(fetch, 1_000).unwrap();
        progress.save(parse, 2_000).unwrap();
        assert_eq!(summary(&progress, 5_000), "1 step done, 1 begun, 1 to come; saved 3s ago");
        let text = table(&progress, 5_000).without(STATE_COLUMN).render(false);
        let expected = "\
STEP   DONE     SEQ  SAVED   SIZE
fetch  yes        1  4s ago     -
parse  begun      2  3s ago     -
write  to come    -  -          -";
        assert_eq!(text, expected);
    }
}
