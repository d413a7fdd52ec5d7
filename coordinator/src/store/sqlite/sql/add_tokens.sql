-- Estimates of tokens: added to tables of version 1, new and old alike.
--
-- A release that does not know them may open the file again: what it enqueues has none.

-- Behind the payload, which everything that reads this reads as well.
ALTER TABLE bodies ADD COLUMN tokens INTEGER;
