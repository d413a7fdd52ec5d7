-- When a lane's next task is due.
SELECT due_ms FROM tasks WHERE lane = ?1 AND state = 0 ORDER BY due_ms LIMIT 1
