//! RabbitMQ: where it is, what things are called there, what messages look like, and connections that are kept up.

mod address;
mod dial;
pub mod message;
mod names;
mod session;

pub use address::{AmqpAddress, PORT, TLS_PORT};
pub use dial::{DialError, dial};
pub use names::Names;
pub use session::{SessionError, State, keep};
