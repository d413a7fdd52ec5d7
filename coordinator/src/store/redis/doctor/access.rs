//! What the store does, tried as it does it: over its own link, as its own user, on keys under its prefix.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use redis::Value;
use tokio::time::timeout;

use crate::store::StoreError;
use crate::store::doctor::{Finding, Verdict};
use crate::store::redis::RedisConfig;
use crate::store::redis::keys::Keys;
use crate::store::redis::link::{Hint, Link, said};
use crate::store::redis::open::{Made, made};
use crate::store::redis::reply::{items, text};
use crate::store::redis::scripts::DOCTOR;

/// Shards that are tried: enough to meet every master of most clusters, and bounded.
const SHARDS_TRIED: u16 = 16;

/// Layout, scripts, keys and hints.
pub(super) async fn try_all(link: &Link, config: &RedisConfig) -> Vec<Finding> {
    let (layout, shards) = layout(link, config).await;
    let keys = Keys::new(&config.prefix, shards);
    let ((scripts, access), hints) = tokio::join!(scripts(link, &keys), hints(link, &keys, config));
    vec![layout, scripts, access, hints]
}

/// What the store was made with.
async fn layout(link: &Link, config: &RedisConfig) -> (Finding, u16) {
    const CHECK: &str = "layout";
    match made(link, config).await {
        Ok(Made { shards, found: true }) => {
            (Finding::ok(CHECK, format!("`{}`, shards {shards}", config.prefix)), shards)
        }
        Ok(Made { shards, found: false }) => (
            Finding::ok(
                CHECK,
                format!("`{}` is new: the first start makes it with shards {shards}", config.prefix),
            ),
            shards,
        ),
        Err(StoreError::Mismatch(said)) => {
            let remedy = "see docs/redis.md: the number of shards and the layout are fixed at first use";
            (Finding::bad(CHECK, Verdict::Refused, said, remedy), 1)
        }
        Err(error) => {
            let remedy = "see what the other checks say of access and of the cluster";
            (Finding::bad(CHECK, Verdict::Refused, said(error), remedy), 1)
        }
    }
}

/// Scripts run, by their source and by their hash, wherever there are shards; and may do what they do.
async fn scripts(link: &Link, keys: &Keys) -> (Finding, Finding) {
    const SCRIPTS: &str = "scripts";
    const ACCESS: &str = "access";
    const REMEDY: &str = "give the user the ACL rule of docs/redis.md, with this prefix";
    let places = (0..keys.shards().min(SHARDS_TRIED)).map(|shard| keys.shard(shard)).chain([keys.once("")]);
    let tried = join_all(places.map(|place| async move {
        let mut call = DOCTOR.on(&place);
        call.arg(0);
        // The source first: it also loads the script, which a call by its hash then finds.
        link.query(&call.with_source()).await?;
        refusals(&link.query(call.by_hash()).await?)
    }))
    .await;
    let mut refused = BTreeMap::new();
    for outcome in tried {
        match outcome {
            Ok((missing, _)) if !missing.is_empty() => {
                let found = format!("Lua here has no {missing}");
                let remedy = "use a Redis or Valkey that is built as it comes, with cmsgpack and struct";
                return (Finding::bad(SCRIPTS, Verdict::Refused, found, remedy), not_tried(ACCESS));
            }
            Ok((_, refusals)) => refused.extend(refusals),
            Err(error) => {
                return (Finding::bad(SCRIPTS, Verdict::Refused, said(error), REMEDY), not_tried(ACCESS));
            }
        }
    }
    let scripts = Finding::ok(SCRIPTS, "EVAL and EVALSHA run, with cmsgpack and struct");
    let Some((_, why)) = refused.first_key_value() else {
        return (scripts, Finding::ok(ACCESS, "every command of the store works under its prefix"));
    };
    let names: Vec<&str> = refused.keys().map(String::as_str).collect();
    let found = format!("refused: {} ({why})", names.join(", "));
    (scripts, Finding::bad(ACCESS, Verdict::Refused, found, REMEDY))
}

fn not_tried(check: &'static str) -> Finding {
    Finding::bad(check, Verdict::Skipped, "not tried: scripts do not run", "mend the scripts first")
}

type Refusals = (String, Vec<(String, String)>);

fn refusals(reply: &Value) -> Result<Refusals, StoreError> {
    let mut parts = items(reply)?.iter();
    let missing = parts.next().map(text).transpose()?.unwrap_or_default().to_owned();
    let refused = parts
        .as_slice()
        .chunks_exact(2)
        .map(|pair| Ok((text(&pair[0])?.to_owned(), text(&pair[1])?.to_owned())));
    Ok((missing, refused.collect::<Result<_, StoreError>>()?))
}

/// A hint that is sent arrives. Coordinators that hear it find nothing in it.
async fn hints(link: &Link, keys: &Keys, config: &RedisConfig) -> Finding {
    const CHECK: &str = "hints";
    const REMEDY: &str = "let the user PUBLISH and SUBSCRIBE on the channel: docs/redis.md";
    let limit = config.link.connect_timeout + config.link.response_timeout;
    let channel = keys.channel();
    let mut heard = link.hints(&channel);
    let hearing = async {
        // Whether it may be sent is told at once; whether it may be heard, only by silence.
        link.publish(&channel, b"doctor").await?;
        // The subscription has begun.
        heard.next().await;
        let sent = tokio::time::Instant::now();
        link.publish(&channel, b"doctor").await?;
        while heard.next().await != Hint::Message(b"doctor".to_vec()) {}
        Ok::<Duration, StoreError>(sent.elapsed())
    };
    match timeout(limit, hearing).await {
        Ok(Ok(_)) => Finding::ok(CHECK, format!("arrive on {channel}")),
        // Scripts publish, too, and would fail.
        Ok(Err(error)) => Finding::bad(CHECK, Verdict::Refused, said(error), REMEDY),
        Err(_) => {
            let found = format!(
                "none arrived on {channel} within {} ms: what other coordinators did is seen up to 1 s late",
                limit.as_millis()
            );
            Finding::bad(CHECK, Verdict::Warning, found, REMEDY)
        }
    }
}
