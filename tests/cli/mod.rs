//! The command line, as a stranger meets it: the real binary, real processes.

mod classify;
mod dev;
mod work;
