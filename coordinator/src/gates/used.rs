//! What claims were given, by what it is charged to.

use std::collections::HashMap;

use redrive_shared::gate::Scope;
use redrive_shared::id::Name;
use redrive_shared::task::Lease;

use crate::store::{Claimed, Restriction};

/// The leases of claims, by what they are charged to.
pub(super) struct Used<'a> {
    pub dependencies: HashMap<&'a Name, Vec<&'a Lease>>,
    queues: HashMap<&'a Name, Vec<&'a Lease>>,
    groups: HashMap<(&'a Name, &'a Name), Vec<&'a Lease>>,
}

impl<'a> Used<'a> {
    /// Dependencies are charged in any case, queues where something in them is restricted.
    pub fn of(restrictions: &'a [Restriction], claimed: &'a [Claimed]) -> Self {
        let mut used = Self { dependencies: HashMap::new(), queues: HashMap::new(), groups: HashMap::new() };
        let in_queues = restrictions.iter().any(|restriction| restriction.scope.queue().is_some());
        for lease in claimed.iter().filter(|one| !one.replayed).flat_map(|one| &one.leases) {
            if let Some(dependency) = &lease.dependency {
                used.dependencies.entry(dependency).or_default().push(lease);
            }
            if !in_queues {
                continue;
            }
            used.queues.entry(&lease.queue).or_default().push(lease);
            if let Some(group) = &lease.group {
                used.groups.entry((&lease.queue, group)).or_default().push(lease);
            }
        }
        used
    }

    /// Those that are charged to it, which are charged to it no more.
    pub fn take(&mut self, scope: &'a Scope) -> Vec<&'a Lease> {
        let used = match scope {
            Scope::Dependency(dependency) => self.dependencies.remove(dependency),
            Scope::Queue(queue) => self.queues.remove(queue),
            Scope::Group { queue, group } => self.groups.remove(&(queue, group)),
        };
        used.unwrap_or_default()
    }
}
