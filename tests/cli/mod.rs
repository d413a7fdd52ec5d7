//! The command line, as a stranger meets it: the real binary, real processes.

mod bench;
mod breakers;
mod classify;
mod commit_file;
mod dev;
mod queues;
mod routes;
mod simulate;
mod work;
