//! Every bound of the flaky upstream, with its unit and its reason.

use std::time::Duration;

/// A request's line and headers, in bytes: twice what real clients with tracing headers send.
pub(super) const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Headers in one request.
pub(super) const HEADERS_MAX: usize = 64;
/// A request's body, in bytes; more is answered 413.
pub(super) const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Room offered to one read of a socket, in bytes: a typical request in one go.
pub(super) const READ_BYTES: usize = 4 * 1024;
/// A chunk-size line of a chunked body, in bytes: a size and perhaps an extension.
pub(super) const CHUNK_LINE_BYTES_MAX: usize = 256;
/// A key, and each `x-redrive-…` header that is kept: the log holds one of each per request.
pub(super) const KEY_BYTES_MAX: usize = 256;
/// Different keys whose progress is remembered (about 150 bytes each); beyond it new keys are refused loudly,
/// because forgetting one would restart its script and hide a repeat.
pub(super) const KEYS_MAX: usize = 1_000_000;
/// Replies in one script.
pub(super) const SCRIPT_STEPS_MAX: usize = 1_000;
/// What `ok` echoes of the request's `input`, in bytes of JSON.
pub(super) const ECHO_BYTES_MAX: usize = 1_024;
/// The longest delay that a script may ask for: the time-out of an attempt.
pub(super) const DELAY_MAX: Duration = Duration::from_secs(600);
/// Requests kept in the log; the oldest go first and are counted.
pub(super) const LOG_ENTRIES_MAX: usize = 200_000;
/// Overlapping pairs that one question returns: n calls of one key can make n² of them.
pub(super) const OVERLAPS_MAX: usize = 10_000;
/// Open connections; more wait in the listener's backlog.
pub(super) const CONNECTIONS_MAX: usize = 1_024;
/// From the first byte of a head (or from the connection's start) to its end.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// From the end of a head to the end of its body.
pub(super) const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Silence between two requests of one connection. Longer than clients keep idle connections (reqwest: 90 s), so that
/// it is they who close: a connection closed by the server just as it is used again would be a fault nobody scripted.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// For a client that asks and then does not read.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long `hang` hangs if the client does not give up.
pub(super) const HANG_MAX: Duration = Duration::from_secs(60);
/// What is still read, and thrown away, from a client that is being refused, in bytes and in time: closing with unread
/// bytes would reset the connection and could destroy the refusal on its way.
pub(super) const DRAIN_BYTES_MAX: usize = 4 * 1024 * 1024;
/// See [`DRAIN_BYTES_MAX`].
pub(super) const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
/// The pause after a failed accept (no file descriptors left): without it the loop would spin.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
