//! Tests of the retry policies, by what is tested.

mod class;
mod decide;
mod distribution;
mod fallback;
mod own;
mod policy;
mod strategy;
