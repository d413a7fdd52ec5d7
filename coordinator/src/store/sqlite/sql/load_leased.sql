-- One leased task with its body, for a claim that is repeated.
SELECT t.seq, t.lane, t.state, t.epoch, t.nonce, t.due_ms, t.lease_until_ms, t.started, t.leased_at_ms, t.runs,
       t.failed, t.lost, t.undelivered, t.deferred, t.released, t.class_failures, t.previous_delay_ms, t.max_attempts,
       t.deadline_ms, t.expires_ms, t.entries, t.enqueued_ms, t.agent, t.boot_id, t.id,
       IFNULL(t.route, b.route), t.failed_on_route, t.primary_dependency, t.cost_micros, t.max_cost_micros,
       t.in_transaction, t.strategy,
       b.task_type, b.type_version, b.payload, b.traceparent, b.labels, b.tokens
FROM tasks t JOIN bodies b ON b.seq = t.seq
WHERE t.seq = ?1 AND t.state = 1 AND t.epoch = ?2
