-- An agent was heard from.
INSERT INTO agents (agent, boot_id, seen_ms, gone, beat) VALUES (?1, ?2, ?3, 0, ?4)
ON CONFLICT (agent) DO UPDATE SET boot_id = excluded.boot_id, seen_ms = excluded.seen_ms, gone = 0, beat = excluded.beat
