-- A task's history, oldest first.
SELECT run, agent, route, started_ms, ended_ms, ending, failure, delay_ms, why, dependency, cost_micros
FROM attempts WHERE seq = ?1 ORDER BY entry
