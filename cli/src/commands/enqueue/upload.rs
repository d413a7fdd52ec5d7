//! A payload that is too large to be sent inline: uploaded first, and referred to.

use std::io::{self, Cursor, IsTerminal};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Waker, Poll};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use redrive_shared::limits::PAYLOAD_MAX_BYTES;
use redrive_shared::wire::NewTask;
use redrive_worker::client::Client;
use tokio::io::{AsyncRead, ReadBuf};

use crate::context::Context;
use crate::patience::Patience;

/// Puts a reference in the place of a payload that is too large, once that is uploaded. The task has its id by then.
pub(super) async fn large_payload(
    context: &Context,
    client: &Client,
    task: &mut NewTask,
    patience: &Patience,
) -> anyhow::Result<()> {
    let Some(id) = task.id.clone() else { return Ok(()) };
    let Some(payload) = task.payload.take_if(|payload| payload.get().len() > PAYLOAD_MAX_BYTES) else {
        return Ok(());
    };
    let bytes: Arc<[u8]> = payload.get().as_bytes().into();
    let bar = progress_bar(context, bytes.len() as u64);
    let upload = async || {
        bar.set_position(0);
        let reader = Shown { bytes: Cursor::new(Arc::clone(&bytes)), bar: bar.clone() };
        client.upload_blob(&id, reader).await
    };
    let kept = patience.call(upload).await;
    bar.finish_and_clear();
    let kept = kept?.value;
    if !context.output.json {
        context.output.say(format!("the payload is uploaded as a blob of {}", HumanBytes(kept.bytes)));
    }
    task.payload_ref = Some(kept);
    Ok(())
}

fn progress_bar(context: &Context, bytes: u64) -> ProgressBar {
    if context.output.json || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(bytes);
    match ProgressStyle::with_template("uploading {bar:30} {bytes} of {total_bytes}  {eta} left") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Bytes whose way out is shown.
struct Shown {
    bytes: Cursor<Arc<[u8]>>,
    bar: ProgressBar,
}

impl AsyncRead for Shown {
    fn poll_read(
        mut self: Pin<&mut Self>,
        waker: &mut Waker<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.bytes).poll_read(waker, buffer);
        self.bar.inc((buffer.filled().len() - before) as u64);
        read
    }
}
