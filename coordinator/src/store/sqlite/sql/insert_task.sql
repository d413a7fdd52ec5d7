-- A new task's hot row. The caller has looked that the id is new.
INSERT INTO tasks (
  id, lane, state, epoch, nonce, due_ms, lease_until_ms, started, leased_at_ms, runs,
  failed, lost, undelivered, deferred, released, class_failures, previous_delay_ms, max_attempts,
  deadline_ms, expires_ms, entries, enqueued_ms, route, failed_on_route, primary_dependency, max_cost_micros, strategy
) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22,
          ?23, ?24, ?25, ?26, ?27)
