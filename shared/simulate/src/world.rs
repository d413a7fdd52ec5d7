//! The loop over events, and what each of them does.

use rand::RngExt;
use redrive_shared::breaker::Breaker;
use redrive_shared::retry::{Decision, Failure, MAX_ATTEMPTS, OnRoute};

use crate::agenda::Agenda;
use crate::arrivals::Arrivals;
use crate::brakes::{Asking, Brakes, Next, Permission, Told};
use crate::chance::{Chance, duration_us, happens, seeded};
use crate::dependency::{Result, Server, Trouble};
use crate::report::{Curve, Ending, Figures};
use crate::scenario::{Room, Scenario, Variant, Workflow};
use crate::tally::{End, Tally};

/// Those who were held back and may all go on ask again within this time, in microseconds: as released tasks do, which are
/// due at `now + U(0, 1 s)`.
const RELEASED_WITHIN_US: u64 = 1_000_000;

/// What can happen.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// The next client comes.
    Come,
    /// A client begins its next task.
    Begin(u32),
    /// A client makes its next attempt, if nothing holds it back.
    Try(u32),
    /// Its call arrives at the dependency.
    Reach(u32),
    /// What it writes arrives there, after having read that version.
    Write { client: u32, version: u64 },
    /// It has its answer, or has given the call up.
    Answer { client: u32, result: Result },
    /// Those whom an agent's brakes hold back may perhaps go on.
    MoveOn(u32),
    /// Those whom the gate holds back may perhaps go on.
    LetThrough,
}

/// A client and the task that it is at.
#[derive(Debug, Default)]
struct Client {
    tasks_left: u32,
    poisoned: bool,
    failed: u32,
    failed_by: [u32; Trouble::COUNT],
    previous_delay_ms: Option<u64>,
    /// When its attempt is due.
    due_us: u64,
    began_us: u64,
    /// Since when it waits for its next attempt.
    waits_since_us: u64,
    waited_us: u64,
    /// When its attempt began, and when its call was sent.
    started_us: u64,
    sent_us: u64,
    leave: Permission,
}

/// One run of one variant.
#[derive(Debug)]
pub(crate) struct World<'a> {
    scenario: &'a Scenario,
    variant: &'a Variant,
    chance: Chance,
    /// Drawn apart from the rest, so that clients come at the same instants under every variant.
    coming: Chance,
    arrivals: Arrivals<'a>,
    agenda: Agenda<Event>,
    server: Server<'a>,
    brakes: Brakes,
    clients: Vec<Client>,
    /// Clients still to come, and those that have come and are not through with their tasks.
    at_work: u32,
    tally: Tally,
    now_us: u64,
}

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) ended: Ending,
    pub(crate) figures: Figures,
    pub(crate) curve: Curve,
}

impl<'a> World<'a> {
    pub(crate) fn new(scenario: &'a Scenario, variant: &'a Variant, seed: u64) -> Self {
        // A scenario was checked when it was read; a breaker that it could not have is none.
        let breaker = variant.breaker.clone().and_then(|config| Breaker::new(config).ok());
        Self {
            scenario,
            variant,
            chance: seeded(seed),
            coming: seeded(!seed),
            arrivals: Arrivals::new(&scenario.clients.rates),
            agenda: Agenda::new(),
            server: Server::new(&variant.dependency),
            brakes: Brakes::new(breaker, scenario.clients.slots, variant.gate.as_ref()),
            clients: Vec::new(),
            at_work: scenario.clients.count,
            tally: Tally::new(),
            now_us: 0,
        }
    }

    /// Runs until nothing is left to do, virtual time is up, or so many events have happened.
    pub(crate) fn run(mut self, events: u64) -> Done {
        self.expect_client();
        let end_us = self.scenario.duration_ms * 1_000;
        let mut left = events;
        let ended = loop {
            if self.at_work == 0 {
                break Ending::Done;
            }
            match self.agenda.next() {
                None => break Ending::Done,
                Some((at_us, _)) if at_us > end_us => {
                    self.now_us = end_us;
                    break Ending::TimeUp;
                }
                Some(_) if left == 0 => break Ending::EventLimit,
                Some((at_us, event)) => {
                    self.now_us = at_us;
                    self.happen(event);
                }
            }
            left -= 1;
        };
        let until_us = if ended == Ending::Done { self.tally.last_end_us() } else { self.now_us };
        let openings = self.brakes.openings(until_us);
        let (figures, curve) = self.tally.finish(self.scenario.cost, openings, until_us);
        Done { ended, figures, curve }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Come => self.come(),
            Event::Begin(client) => self.begin(client),
            Event::Try(client) => self.attempt(client),
            Event::Reach(client) => self.reach(client),
            Event::Write { client, version } => {
                let result = self.server.write(version);
                let back_us = self.travel_us();
                self.answer_at(self.now_us + back_us, client, result);
            }
            Event::Answer { client, result } => self.answer(client, result),
            Event::MoveOn(agent) => self.move_on(agent),
            Event::LetThrough => drop(self.let_through()),
        }
    }

    fn expect_client(&mut self) {
        if self.clients.len() < self.scenario.clients.count as usize {
            match self.arrivals.next_us(&mut self.coming) {
                Some(at_us) => self.agenda.note(at_us, Event::Come),
                None => self.at_work -= self.scenario.clients.count - self.clients.len() as u32,
            }
        }
    }

    fn come(&mut self) {
        let client = self.clients.len() as u32;
        self.clients.push(Client { tasks_left: self.scenario.clients.tasks, ..Client::default() });
        self.expect_client();
        self.begin(client);
    }

    fn begin(&mut self, client: u32) {
        let poisoned = happens(self.variant.dependency.poison_rate, &mut self.chance);
        let now_us = self.now_us;
        let this = self.client(client);
        *this = Client {
            tasks_left: this.tasks_left,
            poisoned,
            began_us: now_us,
            due_us: now_us,
            waits_since_us: now_us,
            ..Client::default()
        };
        self.tally.begin(now_us);
        self.attempt(client);
    }

    fn attempt(&mut self, client: u32) {
        let agent = self.agent(client);
        let Client { due_us, failed, .. } = *self.client(client);
        let asking = Asking { client, agent, due_us, retry: failed > 0 };
        match self.brakes.ask(asking, self.now_us) {
            Some(leave) => self.start(client, leave),
            None => {
                self.move_on(agent);
                if !self.let_through().contains(&client) {
                    self.tally.hold();
                }
            }
        }
    }

    /// Nothing holds the attempt back any longer: it does the steps up to its call, and sends that.
    fn start(&mut self, client: u32, leave: Permission) {
        let now_us = self.now_us;
        let Workflow { calls_at, step, .. } = self.scenario.workflow;
        let Client { failed, waits_since_us, .. } = *self.client(client);
        let again = failed > 0;
        let mut sent_us = now_us;
        if !(again && self.variant.resume) {
            for _ in 1..calls_at {
                sent_us += duration_us(step, &mut self.chance);
            }
            self.tally.steps(calls_at - 1, again);
        }
        let this = self.client(client);
        let waited_us = now_us - waits_since_us;
        this.waited_us += waited_us;
        (this.leave, this.started_us, this.sent_us) = (leave, now_us, sent_us);
        let altogether_us = this.waited_us;
        self.tally.wait(waited_us, altogether_us);
        let there_us = self.travel_us();
        self.agenda.note(sent_us + there_us, Event::Reach(client));
    }

    fn reach(&mut self, client: u32) {
        let Client { poisoned, failed, sent_us, .. } = *self.client(client);
        self.tally.call(self.now_us, failed > 0);
        let (ready_us, result) = self.server.take(self.now_us, poisoned, &mut self.chance);
        let back_us = ready_us + self.travel_us();
        if let (Room::Contention, Ok(())) = (self.variant.dependency.room, result) {
            let (version, there_us) = (self.server.read(), self.travel_us());
            return self.agenda.note(back_us + there_us, Event::Write { client, version });
        }
        let give_up_us = self.variant.dependency.timeout_ms.map(|timeout_ms| sent_us + timeout_ms * 1_000);
        let (at_us, result) = match give_up_us {
            // The way there can take longer than the client waits.
            Some(give_up_us) if back_us > give_up_us => (give_up_us.max(self.now_us), Err(Trouble::TimedOut)),
            Some(_) | None => (back_us, result),
        };
        self.answer_at(at_us, client, result);
    }

    /// The attempt ends with its call if that failed, else with the steps after it.
    fn answer_at(&mut self, mut at_us: u64, client: u32, result: Result) {
        let Workflow { steps, calls_at, step } = self.scenario.workflow;
        if result.is_ok() {
            for _ in calls_at..steps {
                at_us += duration_us(step, &mut self.chance);
            }
        }
        self.agenda.note(at_us, Event::Answer { client, result });
    }

    fn answer(&mut self, client: u32, result: Result) {
        let (agent, now_us) = (self.agent(client), self.now_us);
        let Client { leave, started_us, failed, .. } = *self.client(client);
        let hint_ms = result.err().and_then(|trouble| self.hint_ms(trouble));
        let told = Told { agent, retry: failed > 0, leave, result, hint_ms, started_us, now_us };
        self.brakes.tell(told, &mut self.chance);
        match result {
            Ok(()) => {
                let Workflow { steps, calls_at, .. } = self.scenario.workflow;
                self.tally.steps(1 + steps - calls_at, false);
                self.end(client, End::Succeeded { recovered: failed > 0 });
            }
            Err(trouble) => self.fail(client, trouble),
        }
        self.move_on(agent);
        drop(self.let_through());
    }

    /// What a refusal of that kind says about when to come back.
    fn hint_ms(&self, trouble: Trouble) -> Option<u64> {
        let limit = self.variant.dependency.rate_limit.as_ref().filter(|_| trouble == Trouble::RateLimited);
        limit.and_then(|limit| limit.retry_after_ms)
    }

    /// What production does with the failure.
    fn fail(&mut self, client: u32, trouble: Trouble) {
        self.tally.trouble(trouble);
        let (now_us, retry, hint_ms) = (self.now_us, &self.variant.retry, self.hint_ms(trouble));
        let this = &mut self.clients[client as usize];
        this.failed += 1;
        this.failed_by[trouble as usize] += 1;
        // Where attempts never end, the count stands still before the policy's bound. Every delay has long reached its cap
        // by then, so nothing else depends on it.
        let most = if retry.unlimited { MAX_ATTEMPTS - 1 } else { u32::MAX };
        let failure = Failure {
            class: trouble.class(),
            retryable: true,
            failed: this.failed.min(most),
            failed_in_class: this.failed_by[trouble as usize].min(most),
            max_attempts: None,
            strategy: None,
            previous_delay_ms: this.previous_delay_ms,
            hint_ms,
            now_ms: millis(now_us),
            deadline_ms: millis(this.began_us).saturating_add_unsigned(retry.policy.deadline_ms),
            // Its dependencies stand alone.
            on: OnRoute::default(),
        };
        match retry.policy.decide(&failure, &mut self.chance) {
            Decision::Retry { delay_ms, .. } => {
                (this.previous_delay_ms, this.waits_since_us) = (Some(delay_ms), now_us);
                this.due_us = now_us + delay_ms * 1_000;
                self.agenda.note(this.due_us, Event::Try(client));
                self.tally.delay(delay_ms);
            }
            Decision::Dead { .. } => self.end(client, End::Dead),
            Decision::Escalate { reason } => self.end(client, End::Escalated { reason }),
        }
    }

    fn end(&mut self, client: u32, end: End) {
        let now_us = self.now_us;
        let this = self.client(client);
        this.tasks_left -= 1;
        let (more, began_us) = (this.tasks_left > 0, this.began_us);
        self.tally.end(end, now_us, now_us - began_us);
        if more {
            let pause_us = duration_us(self.scenario.clients.pause, &mut self.chance);
            self.agenda.note(now_us + pause_us, Event::Begin(client));
        } else {
            self.at_work -= 1;
        }
    }

    fn move_on(&mut self, agent: u32) {
        match self.brakes.move_on(agent, self.now_us) {
            Next::Wait(None) => {}
            Next::Wait(Some(at_us)) => self.agenda.note(at_us, Event::MoveOn(agent)),
            Next::Now(clients) => {
                for client in clients {
                    self.agenda.note(self.now_us, Event::Try(client));
                }
            }
            Next::Soon(clients) => {
                for client in clients {
                    let spread_us = self.chance.random_range(0..RELEASED_WITHIN_US);
                    self.agenda.note(self.now_us + spread_us, Event::Try(client));
                }
            }
        }
    }

    /// Starts those whom the gate lets through now.
    fn let_through(&mut self) -> Vec<u32> {
        let (through, look_us) = self.brakes.let_through(self.now_us);
        for (client, leave) in &through {
            self.start(*client, *leave);
        }
        if let Some(at_us) = look_us {
            self.agenda.note(at_us, Event::LetThrough);
        }
        through.into_iter().map(|(client, _)| client).collect()
    }

    fn travel_us(&mut self) -> u64 {
        duration_us(self.variant.dependency.network, &mut self.chance)
    }

    fn client(&mut self, client: u32) -> &mut Client {
        &mut self.clients[client as usize]
    }

    fn agent(&self, client: u32) -> u32 {
        client % self.scenario.clients.agents
    }
}

fn millis(at_us: u64) -> i64 {
    i64::try_from(at_us / 1_000).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nobody is ever served, and everybody tries for ever.
    const HOPELESS: &str = "duration_ms = 60000\n[clients]\ncount = 10\n[dependency]\nservice_ms = 100\nfailure_rate = 1\n\
        [retry]\nstrategy = \"full_jitter\"\nmax_attempts = \"unlimited\"";

    fn run(text: &str, events: u64) -> Done {
        let scenario = Scenario::parse("x.toml", text).unwrap();
        World::new(&scenario, &scenario.variants[0], 1).run(events)
    }

    #[test]
    fn a_run_ends_with_its_time_or_with_its_events_and_says_which() {
        let done = run(HOPELESS, 1_000_000);
        assert_eq!((done.ended, done.figures.unfinished), (Ending::TimeUp, 10.0));
        assert!(done.figures.calls > 50.0, "{:?}", done.figures);
        assert_eq!(run(HOPELESS, 30).ended, Ending::EventLimit);
    }

    #[test]
    fn who_is_held_back_by_a_breaker_loses_no_attempt_and_no_task() {
        let outage = "[clients]\ncount = 20\nagents = 1\n[dependency]\nservice_ms = 10\n[[dependency.outages]]\n\
            from_ms = 0\nto_ms = 20000\n[retry]\nstrategy = \"fixed\"\n[breaker]";
        let figures = run(outage, 1_000_000).figures;
        // All 20 are under way when it opens. After its wait, one probe finds the API well.
        assert_eq!((figures.calls, figures.failed, figures.succeeded), (40.0, 20.0, 20.0), "{figures:?}");
        assert_eq!((figures.breaker_openings, figures.dead), (1.0, 0.0));
        assert!((30_000.0..38_000.0).contains(&figures.completed_ms), "{}", figures.completed_ms);
    }
}
