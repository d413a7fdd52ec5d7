-- Which store this is: a name that no other has. A release that does not know it leaves it alone.
CREATE TABLE IF NOT EXISTS identity (
  name TEXT NOT NULL
) STRICT;
INSERT INTO identity (name) SELECT LOWER(HEX(RANDOMBLOB(16))) WHERE NOT EXISTS (SELECT 1 FROM identity);
