-- The last versions of each queue's policy: the newest one is in force. A queue that was never changed has none.
CREATE TABLE IF NOT EXISTS policy_versions (
  queue   INTEGER NOT NULL,
  version INTEGER NOT NULL,
  at_ms   INTEGER NOT NULL,
  actor   TEXT,
  reason  TEXT,
  policy  TEXT NOT NULL,
  PRIMARY KEY (queue, version)
) STRICT, WITHOUT ROWID;
