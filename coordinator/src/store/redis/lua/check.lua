-- Whether the shard can be written. Leaves a key that is gone a second later.
--
-- ARGV: now
-- Returns: 1. O(1).
call('SET', shard .. 'check', '1', 'PX', 1000)
return 1
