-- Ends the leases of one run of an agent now; reaping judges them.
UPDATE tasks SET lease_until_ms = ?3 WHERE state = 1 AND agent = ?1 AND boot_id = ?2 AND lease_until_ms > ?3
