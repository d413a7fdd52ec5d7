//! Tests of the retry policies, by what is tested.

mod class;
mod decide;
mod distribution;
mod fallback;
mod policy;
mod strategy;
