//! The commands, one a file: `Args` says what it takes, `run` does it.

use clap::Subcommand;

use crate::context::Context;

pub mod agents;
mod amqp_args;
pub mod bench;
pub mod breakers;
pub mod checkpoint;
pub mod classify;
pub mod commit_file;
pub mod completed;
pub mod config;
pub mod coordinator;
pub mod dev;
pub mod doctor;
pub mod enqueue;
pub mod gates;
pub mod lock;
pub mod locks;
pub mod queues;
pub mod simulate;
pub mod step;
pub mod store_args;
pub mod tasks;
pub mod worker;

macro_rules! commands {
    ($($variant:ident => $module:ident, log $level:literal;)*) => {
        /// What `redrive` can do.
        #[derive(Debug, Subcommand)]
        pub enum Command {
            $(#[allow(missing_docs)] $variant(Box<$module::Args>),)*
        }

        impl Command {
            /// What it logs when nobody says otherwise.
            pub fn log_level(&self) -> &'static str {
                match self {
                    // Depends on what it is to do.
                    Self::Dev(args) if args.demo => "off",
                    $(Self::$variant(_) => $level,)*
                }
            }

            /// Threads that it works with; as many as there are processors when it does not say.
            pub fn threads(&self) -> Option<usize> {
                match self {
                    Self::Coordinator(args) => args.threads(),
                    // It keeps Redis busy with less than half of one; the others are for Redis and the coordinators.
                    Self::Bench(_) => Some(1),
                    _ => None,
                }
            }

            /// Does it.
            pub async fn run(self, context: &Context) -> anyhow::Result<()> {
                match self { $(Self::$variant(args) => $module::run(*args, context).await,)* }
            }
        }
    };
}

// In the order of `--help`. A long-running command tells what it does; a client only what is wrong.
commands! {
    Dev => dev, log "warn";
    Coordinator => coordinator, log "info";
    Worker => worker, log "info";
    Enqueue => enqueue, log "warn";
    Tasks => tasks, log "warn";
    Queues => queues, log "warn";
    Gates => gates, log "warn";
    Agents => agents, log "warn";
    Breakers => breakers, log "warn";
    Lock => lock, log "warn";
    Locks => locks, log "warn";
    CommitFile => commit_file, log "warn";
    Step => step, log "warn";
    Checkpoint => checkpoint, log "warn";
    Completed => completed, log "warn";
    Doctor => doctor, log "off";
    Classify => classify, log "warn";
    Simulate => simulate, log "warn";
    Config => config, log "warn";
    Bench => bench, log "warn";
}
