-- The commands that stand for each agent's breakers, as JSON. It came after version 1's first release; a release that does
-- not know it leaves it alone.
CREATE TABLE IF NOT EXISTS breaker_commands (
  agent    TEXT PRIMARY KEY,
  commands TEXT NOT NULL
) STRICT, WITHOUT ROWID;
