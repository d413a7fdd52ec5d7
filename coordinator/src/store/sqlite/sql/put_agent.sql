-- An agent was heard from. One that says farewell (drained, nothing in flight) is gone at once.
INSERT INTO agents (agent, boot_id, seen_ms, gone, beat) VALUES (?1, ?2, ?3, ?4, ?5)
ON CONFLICT (agent) DO UPDATE
SET boot_id = excluded.boot_id, seen_ms = excluded.seen_ms, gone = excluded.gone, beat = excluded.beat
