-- An agent was heard from. One that says farewell (drained, nothing in flight) is gone at once.
INSERT INTO agents (agent, boot_id, seen_ms, gone, beat) VALUES (?1, ?2, ?3, ?4, ?5)
ON CONFLICT (agent, boot_id) DO UPDATE
SET seen_ms = excluded.seen_ms, gone = excluded.gone, beat = excluded.beat
