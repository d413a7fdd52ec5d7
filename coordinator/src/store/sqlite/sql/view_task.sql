-- Everything about one task but its history.
SELECT t.seq, t.lane, t.state, t.epoch, t.nonce, t.due_ms, t.lease_until_ms, t.started, t.leased_at_ms, t.runs,
       t.failed, t.lost, t.undelivered, t.deferred, t.released, t.class_failures, t.previous_delay_ms, t.max_attempts,
       t.deadline_ms, t.expires_ms, t.entries, t.enqueued_ms, t.agent, t.boot_id, t.id,
       IFNULL(t.route, b.route), t.failed_on_route, t.primary_dependency, t.cost_micros, t.max_cost_micros,
       t.in_transaction, t.strategy,
       b.task_type, b.payload, b.labels, q.name, q.policy, l.priority, l.dependency, l.grp,
       (SELECT result FROM results r WHERE r.seq = t.seq),
       (SELECT a.failure FROM attempts a WHERE a.seq = t.seq AND a.failure IS NOT NULL ORDER BY a.entry DESC LIMIT 1),
       (SELECT a.why FROM attempts a WHERE a.seq = t.seq ORDER BY a.entry DESC LIMIT 1),
       b.tokens
FROM tasks t JOIN bodies b ON b.seq = t.seq JOIN lanes l ON l.lane = t.lane JOIN queues q ON q.queue = l.queue
WHERE t.id = ?1
