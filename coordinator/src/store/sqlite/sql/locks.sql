-- Locks that are granted. A release that does not know them grants none.
--
-- Values by token, as `store/locks.rs` says. The row 0 has the highest number given so far: no token is lower than those to
-- come, not even when all locks have ended.
CREATE TABLE IF NOT EXISTS locks (
  token INTEGER PRIMARY KEY,
  value TEXT NOT NULL
) STRICT;
