-- Moves a queue's counter of one state.
INSERT INTO counts (queue, state, tasks) VALUES (?1, ?2, ?3)
ON CONFLICT (queue, state) DO UPDATE SET tasks = tasks + excluded.tasks
