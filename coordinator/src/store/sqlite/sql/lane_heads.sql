-- Every lane with its next due time, to build the index in memory when the store opens. One seek a lane.
SELECT l.lane, l.queue, l.priority, l.dependency, l.grp, l.tasks,
       (SELECT t.due_ms FROM tasks t WHERE t.lane = l.lane AND t.state = 0 ORDER BY t.due_ms LIMIT 1), l.retry
FROM lanes l
