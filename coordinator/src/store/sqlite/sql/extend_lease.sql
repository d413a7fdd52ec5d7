-- Starts a lease or makes it longer, and lets a run take it over; the caller has checked its fence.
UPDATE tasks SET lease_until_ms = ?2, started = 1, agent = IFNULL(?3, agent), boot_id = IFNULL(?4, boot_id) WHERE seq = ?1
