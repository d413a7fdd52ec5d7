-- The hot rows of leases whose time is over, earliest first. Those given before ?3 are left alone.
SELECT seq, lane, state, epoch, nonce, due_ms, lease_until_ms, started, leased_at_ms, runs,
       failed, lost, undelivered, deferred, released, class_failures, previous_delay_ms, max_attempts,
       deadline_ms, expires_ms, entries, enqueued_ms, agent, boot_id, id,
       IFNULL(route, (SELECT b.route FROM bodies b WHERE b.seq = tasks.seq)), failed_on_route, primary_dependency,
       cost_micros, max_cost_micros, in_transaction, strategy
FROM tasks WHERE state = 1 AND lease_until_ms <= ?1 AND leased_at_ms >= ?3 ORDER BY lease_until_ms LIMIT ?2
