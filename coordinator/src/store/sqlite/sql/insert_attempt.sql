-- One more line of a task's history.
INSERT INTO attempts (seq, entry, run, agent, route, started_ms, ended_ms, ending, failure, delay_ms, why)
VALUES (?1, ?2, ?3, ?4, (SELECT route FROM bodies WHERE seq = ?1), ?5, ?6, ?7, ?8, ?9, ?10)
