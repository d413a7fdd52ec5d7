//! Where tasks are kept: flags that several commands share.

use std::path::PathBuf;

use toml::{Table, Value};

/// Which store.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Store")]
pub struct StoreArgs {
    /// Where the embedded store keeps its files.
    #[arg(long, value_name = "DIRECTORY")]
    pub data_dir: Option<PathBuf>,
    /// Keep everything in memory: nothing survives the process.
    #[arg(long, conflicts_with = "data_dir")]
    pub in_memory: bool,
    /// A shared store instead: redis://HOST, redis+sentinel://HOST,…/SERVICE or redis+cluster://HOST,…
    #[arg(long, value_name = "URL", conflicts_with_all = ["data_dir", "in_memory"], hide_env_values = true)]
    pub store: Option<String>,
    /// What every key of the shared store begins with.
    #[arg(long, value_name = "TEXT")]
    pub key_prefix: Option<String>,
    /// Parts of the shared store, fixed when it is first used.
    #[arg(long, value_name = "N")]
    pub shards: Option<u16>,
    /// Replicas that must have a write before it is acknowledged.
    #[arg(long, value_name = "N")]
    pub wait_replicas: Option<u32>,
}

impl StoreArgs {
    /// Puts what was given into the section `[coordinator]`.
    pub fn write(&self, section: &mut Table) {
        if let Some(data_dir) = &self.data_dir {
            section.insert("data_dir".into(), Value::String(data_dir.to_string_lossy().into_owned()));
            section.insert("in_memory".into(), Value::Boolean(false));
        }
        if self.in_memory {
            section.insert("in_memory".into(), Value::Boolean(true));
        }
        let mut store = Table::new();
        if let Some(url) = &self.store {
            store.insert("url".into(), Value::String(url.clone()));
        }
        if let Some(prefix) = &self.key_prefix {
            store.insert("key_prefix".into(), Value::String(prefix.clone()));
        }
        if let Some(shards) = self.shards {
            store.insert("shards".into(), Value::Integer(shards.into()));
        }
        if let Some(replicas) = self.wait_replicas {
            store.insert("wait_replicas".into(), Value::Integer(replicas.into()));
        }
        if !store.is_empty() {
            section.insert("store".into(), Value::Table(store));
        }
    }

    /// Lets a coordinator start on a store that would lose tasks.
    pub fn allow_unsafe(section: &mut Table) {
        let store = section.entry("store").or_insert_with(|| Value::Table(Table::new()));
        if let Some(store) = store.as_table_mut() {
            store.insert("allow_unsafe".into(), Value::Boolean(true));
        }
    }
}
