-- How far tasks came, by their sequence number, as JSON. It came after version 1's first release; a release that does not know it
-- hands tasks out without it.
CREATE TABLE IF NOT EXISTS checkpoints (
  seq      INTEGER PRIMARY KEY,
  progress TEXT NOT NULL
) STRICT;
-- Numbers of forgotten tasks are given again: so this goes with the task, whichever release forgets it.
CREATE TRIGGER IF NOT EXISTS forget_checkpoints AFTER DELETE ON tasks BEGIN
  DELETE FROM checkpoints WHERE seq = OLD.seq;
END;
