-- Tool transactions that a failure left unfinished: added to tables of version 1, new and old alike.
--
-- A release that does not know it leaves the column as it is: a task may then stay where it is for longer than it must.
ALTER TABLE tasks ADD COLUMN in_transaction INTEGER NOT NULL DEFAULT 0;
