-- Finished tasks whose retention is over.
SELECT t.seq, t.lane, t.state FROM tasks t WHERE t.expires_ms IS NOT NULL AND t.expires_ms <= ?1
ORDER BY t.expires_ms LIMIT ?2
