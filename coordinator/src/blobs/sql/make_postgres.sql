-- Blobs in PostgreSQL, in one transaction. `bytes` is written when the last chunk is there: without it, an upload is under way or
-- was cut off. The lock is for coordinators that start at once: IF NOT EXISTS alone lets them fail. What stands for the
-- schema is put in.
SELECT pg_advisory_xact_lock(7235419082);
MAKE_SCHEMA;
CREATE TABLE IF NOT EXISTS SCHEMA.redrive_blobs (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    task TEXT COLLATE "C" NOT NULL,
    blob TEXT COLLATE "C" NOT NULL,
    bytes BIGINT,
    UNIQUE (task, blob)
);
CREATE TABLE IF NOT EXISTS SCHEMA.redrive_blob_chunks (
    of_blob BIGINT NOT NULL REFERENCES SCHEMA.redrive_blobs (id) ON DELETE CASCADE,
    part BIGINT NOT NULL,
    bytes BYTEA NOT NULL,
    PRIMARY KEY (of_blob, part)
);
