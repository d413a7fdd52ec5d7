-- Starts a lease or makes it longer; the caller has checked its fence.
UPDATE tasks SET lease_until_ms = ?2, started = 1 WHERE seq = ?1
