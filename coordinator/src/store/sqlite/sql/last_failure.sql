-- The last failure in a task's history.
SELECT failure FROM attempts WHERE seq = ?1 AND failure IS NOT NULL ORDER BY entry DESC LIMIT 1
