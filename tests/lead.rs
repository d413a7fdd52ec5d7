#![allow(clippy::unwrap_used)]
mod api;
mod cli;
mod crash;
mod tidy;
mod support {
    #[path = "/work/main/tests/support/process.rs"]
    pub mod process;
    #[path = "/work/main/tests/support/server.rs"]
    pub mod server;
}
