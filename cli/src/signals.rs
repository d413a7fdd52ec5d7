//! SIGTERM and SIGINT.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Exit code after a second signal: as a shell reports a process that SIGINT ended.
pub const IMPATIENT_EXIT_CODE: u8 = 130;

/// A token that the first SIGTERM or SIGINT cancels. The second one cancels `impatience`: then the process ends at once, but
/// in order, so that the processes of handlers end with it.
pub fn shutdown(impatience: &CancellationToken) -> std::io::Result<CancellationToken> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let token = CancellationToken::new();
    let (cancelled, impatience) = (token.clone(), impatience.clone());
    tokio::spawn(async move {
        for token in [cancelled, impatience] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("stopping; a second signal stops at once");
            token.cancel();
        }
    });
    Ok(token)
}

/// SIGHUP and SIGQUIT cancel the token, too: for who must not leave behind what it has started.
pub fn hang_up(token: &CancellationToken) -> std::io::Result<()> {
    let (mut hang_up, mut quit) = (signal(SignalKind::hangup())?, signal(SignalKind::quit())?);
    let token = token.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = hang_up.recv() => {}
            _ = quit.recv() => {}
        }
        token.cancel();
    });
    Ok(())
}
