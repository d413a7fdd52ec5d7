//! Redrive.

fn main() {}
