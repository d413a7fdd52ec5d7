//! What Redrive's exchanges and queues are called.

use redrive_shared::id::Name;

/// Names that begin with a prefix, `redrive` unless it is set: several installations can share a virtual host.
///
/// | name | kind | what for |
/// |---|---|---|
/// | `redrive.q.<queue>` | queue | leased tasks, for the consumers of a queue that is pushed |
/// | `redrive.turn.<queue>` | queue | one message: the coordinator that holds it is the one that pushes |
/// | `redrive.outcomes` | queue | how attempts ended |
/// | `redrive.enqueue` | exchange (fanout) | new tasks, and dead letters of other queues |
/// | `redrive.ingress` | queue | what was published to `redrive.enqueue` |
/// | `redrive.rejected` | queue | messages that could not be read, each with the reason |
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    prefix: String,
}

impl Names {
    /// Names with that prefix.
    pub fn new(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into() }
    }

    /// Where a pushed queue's tasks go.
    pub fn pushed(&self, queue: &Name) -> String {
        self.named(&format!("q.{queue}"))
    }

    /// Whose turn it is to push that queue.
    pub fn turn(&self, queue: &Name) -> String {
        self.named(&format!("turn.{queue}"))
    }

    /// Where outcomes come in.
    pub fn outcomes(&self) -> String {
        self.named("outcomes")
    }

    /// The exchange that takes tasks and dead letters.
    pub fn enqueue(&self) -> String {
        self.named("enqueue")
    }

    /// The queue behind that exchange.
    pub fn ingress(&self) -> String {
        self.named("ingress")
    }

    /// Where unreadable messages go.
    pub fn rejected(&self) -> String {
        self.named("rejected")
    }

    /// Whether a queue or exchange is one of these.
    pub fn is_ours(&self, name: &str) -> bool {
        name.strip_prefix(self.prefix.as_str()).is_some_and(|rest| rest.starts_with('.'))
    }

    /// Whether a queue has leased tasks.
    pub fn is_pushed(&self, name: &str) -> bool {
        name.strip_prefix(self.prefix.as_str()).is_some_and(|rest| rest.starts_with(".q."))
    }

    fn named(&self, what: &str) -> String {
        format!("{}.{what}", self.prefix)
    }
}
