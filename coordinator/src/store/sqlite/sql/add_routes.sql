-- Fallback routes and costs: added to tables of version 1, new and old alike.
--
-- A release that does not know them may open the file again: its tasks then go on with the route that they were enqueued
-- with, in the lane where they wait, and what attempts cost meanwhile is not counted.

-- NULL: as in bodies, where the route is that a task began with.
ALTER TABLE tasks ADD COLUMN route INTEGER;
-- NULL: as many as failed.
ALTER TABLE tasks ADD COLUMN failed_on_route INTEGER;
-- What the task was enqueued with, where its lane is that of a dependency that stands in. NULL: its lane's.
ALTER TABLE tasks ADD COLUMN primary_dependency TEXT;
ALTER TABLE tasks ADD COLUMN cost_micros INTEGER NOT NULL DEFAULT 0;
ALTER TABLE tasks ADD COLUMN max_cost_micros INTEGER;

-- Where the attempt went, if not to what its task was enqueued with.
ALTER TABLE attempts ADD COLUMN dependency TEXT;
ALTER TABLE attempts ADD COLUMN cost_micros INTEGER NOT NULL DEFAULT 0;
