-- Gates, and lanes of retries: added to tables of version 1, new and old alike.
--
-- A release that does not know them may open the file again: it makes lanes with the default, and two lanes that differ in
-- nothing that it knows are two lanes all the same.

-- Whether the lane's tasks were tried before. Rows that are there already stay what they are, whatever their tasks have been
-- through: each task moves when it is next scheduled, and looking at all of them would hold up the start.
ALTER TABLE lanes ADD COLUMN retry INTEGER NOT NULL DEFAULT 0;

-- Values by dependency, each with the version of its last change. The row '' (no dependency's name) has the last change of
-- any of them as its version: it stays when a gate is forgotten.
CREATE TABLE gates (
  dependency TEXT PRIMARY KEY,
  version    INTEGER NOT NULL,
  value      TEXT NOT NULL
) STRICT, WITHOUT ROWID;
