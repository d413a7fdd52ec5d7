-- One more line of a task's history.
INSERT INTO attempts (
  seq, entry, run, agent, route, started_ms, ended_ms, ending, failure, delay_ms, why, dependency, cost_micros
) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
