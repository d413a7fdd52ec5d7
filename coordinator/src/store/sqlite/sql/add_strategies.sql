-- Tasks' own backoff: added to tables of version 1, new and old alike.
--
-- A release that does not know it leaves the column as it is, and waits by the queue's own strategy.
-- As JSON. NULL: the queue's.
ALTER TABLE tasks ADD COLUMN strategy TEXT;
