-- Puts a task off that cannot be read, whatever it waits for.
UPDATE tasks SET due_ms = MAX(due_ms, ?2), lease_until_ms = MAX(lease_until_ms, ?2), deadline_ms = MAX(deadline_ms, ?2)
WHERE seq = ?1
