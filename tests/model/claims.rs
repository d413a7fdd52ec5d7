//! Claims on both sides: who gets what, what gates hold back, and when to come back.

use std::collections::BTreeMap;

use redrive_coordinator::store::{Claimed, Restriction};
use redrive_shared::gate::Scope;
use redrive_shared::lifecycle::Fence;

use super::command::{AGENTS, Claim, Gate, IDS, Of, QUEUES};
use super::compare::{Pair, boot_of, dependency_name, group_name, number_of};
use super::reference::{Answer, Lease, Standing, Task};
use crate::support::{claim_of, name};

/// What gates still let through: of any kind, and of those that were tried before. In the order of the gates.
struct Left(Vec<(Of, u32, u32)>);

impl Of {
    fn has(self, task: &Task) -> bool {
        match self {
            Self::Dependency(dependency) => task.lane.2 == Some(dependency),
            Self::Queue(queue) => task.queue == queue,
            Self::Group(queue, group) => task.queue == queue && task.lane.1 == Some(group),
        }
    }

    fn scope(self) -> Scope {
        match self {
            Self::Dependency(dependency) => Scope::Dependency(dependency_name(dependency)),
            Self::Queue(queue) => Scope::Queue(name(QUEUES[queue])),
            Self::Group(queue, group) => {
                Scope::Group { queue: name(QUEUES[queue]), group: group_name(group) }
            }
        }
    }
}

impl Left {
    /// Of what is named twice, the lower bound of each kind.
    fn of(gates: &[Gate]) -> Self {
        let mut left: Vec<(Of, u32, u32)> = Vec::new();
        for Gate { of, any, retries } in gates {
            let (any, retries) = (any.unwrap_or(u32::MAX), retries.unwrap_or(u32::MAX));
            match left.iter_mut().find(|(known, ..)| known == of) {
                Some(known) => *known = (known.0, known.1.min(any), known.2.min(retries)),
                None => left.push((*of, any, retries)),
            }
        }
        Self(left)
    }

    /// Those that let nothing of the task's kind through.
    fn holding<'a>(&'a self, task: &'a Task) -> impl Iterator<Item = &'a (Of, u32, u32)> {
        self.0
            .iter()
            .filter(|(of, any, retries)| of.has(task) && (*any == 0 || *retries == 0 && task.is_retry()))
    }

    fn hold_back(&self, task: &Task) -> bool {
        self.holding(task).next().is_some()
    }

    /// Whether a gate holds the one back that has nothing to do with the other.
    fn tell_apart(&self, held: &Task, given: &Task) -> bool {
        self.holding(held).any(|(of, any, _)| !of.has(given) || *any > 0 && !given.is_retry())
    }

    /// The scopes of those that these are in, in order.
    fn scopes(&self, those: impl Fn(&(Of, u32, u32)) -> bool) -> Vec<Scope> {
        self.0.iter().filter(|gate| those(gate)).map(|(of, ..)| of.scope()).collect()
    }

    /// The task was given.
    fn take(&mut self, task: &Task) {
        assert!(!self.hold_back(task), "more than a gate lets through");
        for gate in self.0.iter_mut().filter(|(of, ..)| of.has(task)) {
            gate.1 -= 1;
            gate.2 -= u32::from(task.is_retry());
        }
    }
}

fn store_gate(gate: Gate) -> Restriction {
    Restriction { scope: gate.of.scope(), any: gate.any, retries: gate.retries }
}

impl Pair {
    pub async fn claim(&mut self, claim: &Claim) {
        let request = redrive_coordinator::store::Claim {
            agent: name(AGENTS[claim.agent]),
            boot_id: Some(boot_of(claim.agent)),
            request_id: claim.request.map(|number| name(&format!("r{number}"))),
            queues: claim.queues.iter().map(|queue| name(QUEUES[*queue])).collect(),
            lease_ms: claim.lease_ms,
            avoid: claim.avoid.into_iter().map(dependency_name).collect(),
            ..claim_of(claim.max)
        };
        let gates: Vec<Restriction> = claim.gates.iter().map(|gate| store_gate(*gate)).collect();
        let claimed = self.bed.claim(vec![request], &gates).await.unwrap().remove(0);
        let leases: Vec<(usize, Fence)> = claimed
            .leases
            .iter()
            .map(|lease| (number_of(&lease.id), Fence { epoch: lease.epoch, nonce: lease.nonce }))
            .collect();
        let request = claim.request.map(|number| (claim.agent, number));
        // An answer can be asked for again for ten minutes.
        let since_ms = self.bed.now_ms() - 600_000;
        let before = request.and_then(|request| self.model.answered.get(&request));
        let before = before.filter(|answer| answer.at_ms >= since_ms);
        assert_eq!(claimed.replayed, before.is_some());
        let too_late: Vec<usize> = claimed.too_late.iter().map(|task| number_of(task)).collect();
        if let Some(before) = before {
            assert!(claimed.held_back.is_empty(), "nothing new was looked for");
            let before = before.leases.clone();
            return self.check_again(claim.agent, before, leases, too_late).await;
        }
        if self.model.agents.get(&claim.agent).is_some_and(|agent| agent.gone) {
            // Nothing for who was silent for too long, until it is heard from again.
            assert!(leases.is_empty() && claimed.too_late.is_empty() && claimed.next_due_ms.is_none());
            assert!(claimed.held_back.is_empty());
            return;
        }
        let left = self.check_choice(claim, &leases, &too_late);
        self.miss(&too_late).await;
        self.check_leases(claim, &claimed.leases);
        self.check_held_back(claim, &left, &claimed);
        let next_due_ms = self.next_due_ms(claim, &left);
        let expected = if leases.len() < claim.max { next_due_ms } else { None };
        let told = claimed.next_due_ms;
        // What one shard said a moment ago may be too early since, and is never too late.
        let early = !self.bed.order_is_exact()
            && told.is_some_and(|told_ms| {
                told_ms > self.bed.now_ms() && expected.is_none_or(|due_ms| told_ms < due_ms)
            });
        assert!(told == expected || early, "to come back at {told:?}, expected {expected:?}");
        self.given.extend(&leases);
        if let Some(request) = request.filter(|_| !leases.is_empty()) {
            self.model.answered.insert(request, Answer { at_ms: self.bed.now_ms(), leases });
        }
    }

    /// When the claim is to come back: what is held back counts as long as nothing of its lane is due.
    fn next_due_ms(&self, claim: &Claim, left: &Left) -> Option<i64> {
        let mut heads = BTreeMap::new();
        for task in self.model.eligible(&claim.queues, claim.avoid) {
            let task = &self.model.tasks[&task];
            let lane = (task.queue, task.lane, task.is_retry());
            let head = heads.entry((lane, left.hold_back(task))).or_insert(task.due_ms);
            *head = task.due_ms.min(*head);
        }
        let counts = |held: bool, due_ms: i64| !held || due_ms > self.bed.now_ms();
        heads.into_iter().filter(|((_, held), due_ms)| counts(*held, *due_ms)).map(|(_, ms)| ms).min()
    }

    /// What is told of gates: each behind which something is due; of a claim that was filled, as far as it came.
    fn check_held_back(&self, claim: &Claim, left: &Left, claimed: &Claimed) {
        let eligible = self.model.eligible(&claim.queues, claim.avoid);
        let due: Vec<&Task> = eligible.iter().map(|task| &self.model.tasks[task]).collect();
        let due = || due.iter().filter(|task| task.due_ms <= self.bed.now_ms());
        let held_back = &claimed.held_back;
        if claimed.leases.len() == claim.max {
            let may_be_told = left.scopes(|(of, ..)| due().any(|task| of.has(task)));
            assert!(held_back.iter().all(|scope| may_be_told.contains(scope)), "{held_back:?}");
            return;
        }
        // Told is what held a lane back when the claim came to it: what gave its last place after that may hold it as well, and is
        // told only if another lane was passed over for it. So all that waits is told of by something that holds it back.
        let is_told = |task: &Task| left.holding(task).any(|(of, ..)| held_back.contains(&of.scope()));
        let untold = due().filter(|task| left.hold_back(task) && !is_told(task)).count();
        assert_eq!(untold, 0, "{held_back:?} does not tell of all that is held back");
        let holds = |gate: &(Of, u32, u32), task: &Task| left.holding(task).any(|one| one == gate);
        // A lane is not looked into while its gate is shut: where a clock was set back since its last turn, that turn may have
        // come before its next task is due. Then it is told for nothing.
        let waiting = || eligible.iter().map(|task| &self.model.tasks[task]);
        let may_be_told = left.scopes(|gate| match self.set_back {
            true => waiting().any(|task| holds(gate, task)),
            false => due().any(|task| holds(gate, task)),
        });
        let in_order = may_be_told.iter().filter(|scope| held_back.contains(scope));
        assert!(in_order.eq(held_back), "{held_back:?} of {may_be_told:?}");
    }

    /// Tasks were escalated whose deadline had passed before they started.
    async fn miss(&mut self, too_late: &[usize]) {
        for number in too_late {
            // A store may have leased it before it saw that it is late.
            let epoch = self.bed.view(IDS[*number]).await.epoch;
            let task = self.model.tasks.get_mut(number).unwrap();
            task.too_late(self.bed.now_ms() * 1_000);
            assert!(task.epoch <= epoch);
            task.epoch = epoch;
        }
    }

    /// The same request again: the leases that still hold, but for what must not start any more.
    async fn check_again(
        &mut self,
        agent: usize,
        before: Vec<(usize, Fence)>,
        mut leases: Vec<(usize, Fence)>,
        mut too_late: Vec<usize>,
    ) {
        let now_ms = self.bed.now_ms();
        let holds = |(task, fence): &(usize, Fence)| {
            let task = self.model.tasks.get(task).filter(|task| task.standing(*fence) == Standing::Holds);
            // Unless another took it over.
            task.and_then(|task| task.lease).is_some_and(|lease| lease.agent == agent)
        };
        let is_late = |(task, _): &(usize, Fence)| {
            let task = &self.model.tasks[task];
            task.deadline_ms < now_ms && task.lease.is_some_and(|lease| !lease.started)
        };
        let (late, mut again): (Vec<_>, Vec<_>) = before.into_iter().filter(holds).partition(is_late);
        let mut late: Vec<usize> = late.into_iter().map(|(task, _)| task).collect();
        if !self.bed.order_is_exact() {
            again.sort_by_key(|(task, _)| *task);
            leases.sort_by_key(|(task, _)| *task);
        }
        late.sort_unstable();
        too_late.sort_unstable();
        assert_eq!((leases, &too_late), (again, &late), "the same leases again");
        self.miss(&too_late).await;
    }

    /// Which tasks a claim may get: as many as there are and gates let through, of the highest priority, the earliest of each
    /// lane. Returns what gates would still let through.
    fn check_choice(&self, claim: &Claim, leases: &[(usize, Fence)], too_late: &[usize]) -> Left {
        let now_ms = self.bed.now_ms();
        let mut due = self.model.eligible(&claim.queues, claim.avoid);
        due.retain(|task| self.model.tasks[task].due_ms <= now_ms);
        let (late, fit): (Vec<usize>, Vec<usize>) =
            due.iter().partition(|task| now_ms > self.model.tasks[*task].deadline_ms);
        assert!(too_late.iter().all(|task| late.contains(task)), "escalated too early");
        assert!(leases.iter().all(|(task, _)| fit.contains(task)), "not for this claim: {leases:?}");
        let mut through = Left::of(&claim.gates);
        leases.iter().for_each(|(task, _)| through.take(&self.model.tasks[task]));
        let taken = |task: &usize| leases.iter().any(|(given, _)| given == task) || too_late.contains(task);
        assert!(leases.len() <= claim.max);
        let mut passed_over = fit.iter().filter(|task| !taken(task));
        let is_full = leases.len() == claim.max;
        assert!(
            is_full || passed_over.all(|task| through.hold_back(&self.model.tasks[task])),
            "more could be given"
        );
        let order = |task: &usize| (self.model.tasks[task].due_ms, self.model.tasks[task].seq);
        for left in due.iter().filter(|task| !taken(task)) {
            for (given, _) in leases {
                let (given_task, left_task) = (&self.model.tasks[given], &self.model.tasks[left]);
                if !self.bed.order_is_exact() {
                    continue;
                }
                if through.tell_apart(left_task, given_task) {
                    continue;
                }
                assert!(given_task.lane.0 <= left_task.lane.0, "priority first");
                // Due in the same millisecond, they follow each other as they came if they came in one.
                if given_task.due_ms == left_task.due_ms && given_task.came_ms != left_task.came_ms {
                    continue;
                }
                let lane = |task: &Task| (task.queue, task.lane, task.is_retry());
                let same_lane = lane(given_task) == lane(left_task);
                assert!(!same_lane || order(given) < order(left), "earliest first within a lane");
            }
        }
        through
    }

    fn check_leases(&mut self, claim: &Claim, leases: &[redrive_shared::task::Lease]) {
        let now_ms = self.bed.now_ms();
        for lease in leases {
            let task = self.model.tasks.get_mut(&number_of(&lease.id)).unwrap();
            let length_ms = claim.lease_ms.map_or(task.rules().lease_ms, u64::cast_signed);
            let fence = Fence { epoch: lease.epoch, nonce: lease.nonce };
            let until_ms = now_ms + length_ms;
            task.claim(
                Lease { fence, agent: claim.agent, given_ms: now_ms, until_ms, started: false },
                now_ms * 1_000,
            );
            assert_eq!((lease.lease_until_ms, lease.due_at_ms), (until_ms, task.due_ms));
            assert_eq!((lease.attempt, lease.run), (task.ledger.failed + 1, task.runs));
            assert_eq!(lease.ledger, task.ledger);
        }
    }
}
