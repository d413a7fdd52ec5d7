-- Version 1 of the embedded store (PRAGMA user_version). What was added to it since is in add_*.sql.
--
-- A task is a hot row that every transition rewrites (tasks) and a cold one that is written once (bodies): a batch of
-- transitions then dirties few pages. What varies by task and is rarely read (history, results) has tables of its own.

CREATE TABLE queues (
  queue  INTEGER PRIMARY KEY,
  name   TEXT NOT NULL UNIQUE,
  paused INTEGER NOT NULL DEFAULT 0,
  policy TEXT NOT NULL
) STRICT;

-- Tasks by queue and state; kept in step with every transition, so that nobody ever counts rows.
CREATE TABLE counts (
  queue INTEGER NOT NULL,
  state INTEGER NOT NULL,
  tasks INTEGER NOT NULL,
  PRIMARY KEY (queue, state)
) STRICT, WITHOUT ROWID;

-- Interned lanes; `tasks` counts the rows that refer to it, and a lane that nothing refers to is deleted.
CREATE TABLE lanes (
  lane       INTEGER PRIMARY KEY,
  queue      INTEGER NOT NULL,
  priority   INTEGER NOT NULL,
  dependency TEXT,
  grp        TEXT,
  tasks      INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE tasks (
  seq               INTEGER PRIMARY KEY,
  id                TEXT NOT NULL UNIQUE,
  lane              INTEGER NOT NULL,
  state             INTEGER NOT NULL,
  epoch             INTEGER NOT NULL,
  nonce             INTEGER NOT NULL,
  due_ms            INTEGER NOT NULL,
  lease_until_ms    INTEGER NOT NULL,
  started           INTEGER NOT NULL,
  leased_at_ms      INTEGER NOT NULL,
  runs              INTEGER NOT NULL,
  failed            INTEGER NOT NULL,
  lost              INTEGER NOT NULL,
  undelivered       INTEGER NOT NULL,
  deferred          INTEGER NOT NULL,
  released          INTEGER NOT NULL,
  class_failures    BLOB,
  previous_delay_ms INTEGER,
  max_attempts      INTEGER,
  deadline_ms       INTEGER NOT NULL,
  expires_ms        INTEGER,
  entries           INTEGER NOT NULL,
  enqueued_ms       INTEGER NOT NULL,
  agent             TEXT,
  boot_id           TEXT
) STRICT;

-- The sorted set of each lane (state 0 = scheduled).
CREATE INDEX tasks_due ON tasks (lane, due_ms, seq) WHERE state = 0;
-- Leases by deadline (state 1 = leased).
CREATE INDEX tasks_lease ON tasks (lease_until_ms) WHERE state = 1;
-- Waiting tasks by deadline: one that passes there is escalated, claimed or not.
CREATE INDEX tasks_deadline ON tasks (deadline_ms) WHERE state = 0;
-- Finished tasks by the end of their retention.
CREATE INDEX tasks_expiry ON tasks (expires_ms) WHERE expires_ms IS NOT NULL;

CREATE TABLE bodies (
  seq          INTEGER PRIMARY KEY,
  task_type    TEXT NOT NULL,
  type_version INTEGER,
  payload_hash BLOB NOT NULL,
  route        INTEGER NOT NULL,
  traceparent  TEXT,
  labels       TEXT,
  -- Last: SQLite walks through a large value to reach the columns behind it.
  payload      TEXT NOT NULL
) STRICT;

CREATE TABLE results (
  seq    INTEGER PRIMARY KEY,
  result TEXT NOT NULL
) STRICT;

CREATE TABLE attempts (
  seq        INTEGER NOT NULL,
  entry      INTEGER NOT NULL,
  run        INTEGER NOT NULL,
  agent      TEXT,
  route      INTEGER NOT NULL,
  started_ms INTEGER NOT NULL,
  ended_ms   INTEGER NOT NULL,
  ending     TEXT NOT NULL,
  failure    TEXT,
  delay_ms   INTEGER,
  why        TEXT,
  PRIMARY KEY (seq, entry)
) STRICT, WITHOUT ROWID;

-- Answers to claims that carried a request id, so that a lost reply can be asked for again.
CREATE TABLE claims (
  agent      TEXT NOT NULL,
  request_id TEXT NOT NULL,
  at_ms      INTEGER NOT NULL,
  leases     TEXT NOT NULL,
  PRIMARY KEY (agent, request_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX claims_age ON claims (at_ms);

-- Runs of agents: a new process of an agent does not speak for the leases of the one before.
CREATE TABLE agents (
  agent   TEXT NOT NULL,
  boot_id TEXT NOT NULL,
  seen_ms INTEGER NOT NULL,
  gone    INTEGER NOT NULL DEFAULT 0,
  beat    TEXT NOT NULL,
  PRIMARY KEY (agent, boot_id)
) STRICT, WITHOUT ROWID;
