-- Gates of queues, and of groups of queues, by the key of their scope: as those of dependencies, which have a table of their own.
-- An older release reads every row of that one as a dependency's, and would fail at these: it does not know of this one, and
-- holds nothing back for what is in it.
CREATE TABLE IF NOT EXISTS scoped_gates (
  scope   TEXT PRIMARY KEY,
  version INTEGER NOT NULL,
  value   TEXT NOT NULL
) STRICT, WITHOUT ROWID;
