-- Blobs in a file of their own. `bytes` is written when the last chunk is there: without it, an upload is under way or was cut off.
CREATE TABLE blobs (
    id INTEGER PRIMARY KEY,
    task TEXT NOT NULL,
    blob TEXT NOT NULL,
    bytes INTEGER,
    UNIQUE (task, blob)
) STRICT;
CREATE TABLE chunks (
    of INTEGER NOT NULL REFERENCES blobs (id) ON DELETE CASCADE,
    part INTEGER NOT NULL,
    bytes BLOB NOT NULL,
    PRIMARY KEY (of, part)
) STRICT;
