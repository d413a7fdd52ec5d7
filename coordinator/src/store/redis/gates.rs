//! Gates: one hash of values, changed by compare and swap.

use redis::{Value, cmd};
use redrive_shared::gate::Scope;
use redrive_shared::limits::{BATCH_MAX_ITEMS, GATE_MAX_BYTES, GATES_MAX};

use super::Inner;
use super::reply::{at, integer, items, pairs, text};
use super::scripts::SWAP_GATES;
use crate::store::{GateCell, GateSwap, GateSwapped, Gates, Result, StoreError};

/// The field that has the last change of any gate where a gate has its version: no scope has this key.
const LAST_CHANGE: &str = "";

impl Inner {
    /// All gates, unless the last change was seen.
    pub async fn gates(&self, seen: i64) -> Result<Option<Gates>> {
        let key = self.keys.once("gates");
        if seen != 0 && last_change(&self.link.query(cmd("HGET").arg(&key).arg(LAST_CHANGE)).await?)? == seen
        {
            return Ok(None);
        }
        // One command: values, and the change that they are as of.
        let all = self.link.query(cmd("HGETALL").arg(&key)).await?;
        let mut gates = Gates::default();
        for (field, value) in pairs(&all)? {
            match text(field)? {
                LAST_CHANGE => gates.change = last_change(value)?,
                // One that is damaged does not hide the others.
                key => gates.cells.extend(cell(Scope::of_key(key), key, text(value)?.split_once(' '))),
            }
        }
        Ok(Some(gates))
    }

    /// Changes gates, each by itself.
    pub async fn swap_gates(&self, batch: &[GateSwap]) -> Result<Vec<GateSwapped>> {
        let mut answers = Vec::with_capacity(batch.len());
        for part in batch.chunks(BATCH_MAX_ITEMS) {
            let mut call = SWAP_GATES.on(self.keys.once(""));
            call.arg(self.time.argument()).arg(self.keys.channel()).arg(&self.origin);
            call.arg(GATES_MAX).arg(GATE_MAX_BYTES);
            for swap in part {
                let verb = if swap.value.is_some() { "put" } else { "forget" };
                call.arg(&*swap.scope.key()).arg(swap.seen).arg(verb);
                call.arg(swap.value.as_deref().unwrap_or_default()).arg(u8::from(swap.tell));
            }
            let reply = self.link.write(call).await?;
            for (swap, answer) in part.iter().zip(items(&reply)?) {
                answers.push(swapped(&swap.scope, items(answer)?)?);
            }
        }
        Ok(answers)
    }
}

fn swapped(scope: &Scope, answer: &[Value]) -> Result<GateSwapped> {
    match text(at(answer, 0)?)? {
        "now" => Ok(GateSwapped::Now(integer(at(answer, 1)?)?)),
        "no room" => Ok(GateSwapped::NoRoom),
        _ if answer.len() == 1 => Ok(GateSwapped::Changed(None)),
        _ => {
            let there = Some((text(at(answer, 1)?)?, text(at(answer, 2)?)?));
            let cell = cell(Some(scope.clone()), &scope.key(), there);
            Ok(cell.map_or(GateSwapped::NoRoom, |cell| GateSwapped::Changed(Some(cell))))
        }
    }
}

fn last_change(value: &Value) -> Result<i64> {
    if *value == Value::Nil {
        return Ok(0);
    }
    let change = text(value)?.split(' ').next().and_then(|change| change.parse().ok());
    change.ok_or_else(|| StoreError::Corrupt("the last change of gates cannot be read".into()))
}

/// None: it is damaged, or of a kind of scope that a newer release knows.
fn cell(scope: Option<Scope>, key: &str, version_and_value: Option<(&str, &str)>) -> Option<GateCell> {
    let read = || {
        let (version, value) = version_and_value?;
        Some(GateCell { scope: scope?, version: version.parse().ok()?, value: value.to_owned() })
    };
    let cell = read();
    if cell.is_none() {
        tracing::warn!(key, "the gate in the store is damaged, or of a newer release, and passed over");
    }
    cell
}
