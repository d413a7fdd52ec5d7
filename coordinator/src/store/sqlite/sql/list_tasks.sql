-- One stretch of the list, newest first: up to ?2 rows below sequence number ?1, of which those that match are shown.
SELECT t.id, t.seq,
       (?3 IS NULL OR t.state = ?3) AND (?4 IS NULL OR t.lane IN (SELECT lane FROM lanes WHERE queue = ?4))
FROM tasks t WHERE t.seq < ?1 ORDER BY t.seq DESC LIMIT ?2
