-- What each agent lost lately with its workers, as JSON. It came after version 1's first release; a release that does not know
-- it leaves it alone.
CREATE TABLE IF NOT EXISTS workers_lost (
  agent TEXT PRIMARY KEY,
  lost  TEXT NOT NULL
) STRICT, WITHOUT ROWID;
