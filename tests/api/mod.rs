//! The HTTP API of a real coordinator, over real sockets.

mod bad_input;
mod breakers;
mod life;
mod policies;
mod waiting;
