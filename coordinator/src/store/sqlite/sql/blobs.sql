-- What of one task refers to blobs: its payload and its result where a reference lies in their place, and its progress.
SELECT CASE WHEN SUBSTR(b.payload, 1, 1) = '@' THEN b.payload END,
       CASE WHEN SUBSTR(r.result, 1, 1) = '@' THEN r.result END,
       c.progress
FROM tasks t JOIN bodies b ON b.seq = t.seq LEFT JOIN results r ON r.seq = t.seq LEFT JOIN checkpoints c ON c.seq = t.seq
WHERE t.id = ?1
