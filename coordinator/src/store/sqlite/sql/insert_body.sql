-- A new task's cold row.
INSERT INTO bodies (seq, task_type, type_version, payload, payload_hash, route, traceparent, labels, tokens)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
