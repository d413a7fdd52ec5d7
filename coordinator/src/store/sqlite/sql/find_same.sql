-- What a repeated id is compared with.
SELECT t.state, t.due_ms, b.payload_hash FROM tasks t JOIN bodies b ON b.seq = t.seq WHERE t.id = ?1
