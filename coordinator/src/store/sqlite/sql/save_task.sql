-- Writes a hot row back after a transition.
UPDATE tasks SET
  state = ?2, epoch = ?3, nonce = ?4, due_ms = ?5, lease_until_ms = ?6, started = ?7, leased_at_ms = ?8, runs = ?9,
  failed = ?10, lost = ?11, undelivered = ?12, deferred = ?13, released = ?14, class_failures = ?15,
  previous_delay_ms = ?16, max_attempts = ?17, deadline_ms = ?18, expires_ms = ?19, entries = ?20,
  agent = ?21, boot_id = ?22, lane = ?23, route = ?24, failed_on_route = ?25, primary_dependency = ?26, cost_micros = ?27,
  in_transaction = ?28
WHERE seq = ?1
