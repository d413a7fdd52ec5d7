//! What a group's gate knows of costs: the sum is the gate's, the bound its queue's.

use redrive_shared::cost::Cost;
use redrive_shared::gate::Scope;
use redrive_shared::wire::GateView;

use super::{BUDGET_WITHIN_MS, Entry, WRITE_WITHIN_MS};

impl Entry {
    /// Until when nothing passes, since what may be spent today was spent.
    pub fn spent_until_ms(&self, now_ms: i64) -> Option<i64> {
        self.gate.spent_until_ms(self.most?, now_ms)
    }

    /// What may be spent within a day is that from now on.
    pub fn bound_costs(&mut self, most: Option<Cost>, now_ms: i64) {
        if self.most != most {
            self.most = most;
            self.look(now_ms);
        }
    }

    /// When others must know what was spent: at once where it uses up what may be, and soon where half of that is gone.
    pub(super) fn spent_within_ms(&self, now_ms: i64) -> i64 {
        let Some(most) = self.most else { return WRITE_WITHIN_MS };
        let half = Cost::from_micros(most.micros() / 2);
        match (self.base.spent_until_ms(most, now_ms), self.spent_until_ms(now_ms)) {
            (None, Some(_)) => 0,
            (None, None) if self.gate.spent_until_ms(half, now_ms).is_some() => BUDGET_WITHIN_MS,
            _ => WRITE_WITHIN_MS,
        }
    }

    pub fn view(&self, scope: &Scope, now_ms: i64) -> GateView {
        GateView::of(scope.clone(), &self.gate, now_ms).with_costs(&self.gate, self.most, now_ms)
    }
}
