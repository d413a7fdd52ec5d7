//! What all tests share: a store to play with, a clock that is moved by hand, and short ways to say things.

mod bed;
mod build;
pub mod certificates;
pub mod daemon;
pub mod port;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod python;
pub mod rabbit;
pub mod redis;
pub mod s3;
pub mod server;
pub mod signal;
pub mod sink;
pub mod wait;

pub use bed::{Backend, Bed, RedisBackend, SqliteBackend, fast_directory, redis_config};
pub use build::{
    EnqueueExt, START_MS, beat, beat_with, blob, checkpoint, claim_of, failure, fence, fixed_policy, id, ids,
    name, of_dependency, of_group, of_queue, raw, save_of, settle_of, task,
};
