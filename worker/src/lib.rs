//! The worker: takes tasks from a coordinator, runs them through a [`Handler`], and says how they ended.
//!
//! ```text
//!  client   the coordinator's HTTP API, typed (for everyone who speaks to a coordinator)
//!  link     what the runtime needs of it, as a trait
//!  amqp     work that RabbitMQ brings, the rest over HTTP
//!  runtime  claims → executor → settler, heartbeat, presence, drain
//!  context  what a handler can ask for: steps and checkpoints, locks, when to stop
//!  breakers the agent's circuit breaker, and one for each dependency
//!  handlers a process a task, or an HTTP endpoint
//!  fenced_file replaces a file under a lock's token
//! ```

pub mod amqp;
mod backoff;
mod breakers;
pub mod client;
mod config;
mod context;
pub mod fenced_file;
mod handler;
pub mod handlers;
mod heavy;
pub mod link;
pub mod lock;
mod runtime;
mod telemetry;
#[cfg(test)]
mod test_server;

pub use config::{ConfigError, WorkerConfig};
pub use context::{AttemptLock, CancelReason, ContextError, Stop, Surroundings, TaskContext, Wanted};
pub use handler::{CANCEL_GRACE, Handler};
pub use runtime::{Summary, WorkerError, run};
pub use telemetry::describe as describe_metrics;
