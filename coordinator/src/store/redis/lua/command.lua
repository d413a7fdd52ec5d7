-- The commands that stand for an agent's breakers are replaced, if they are still what the caller saw.
--
-- KEYS[1]: what every key that there is once begins with
-- ARGV: now, agent, what the caller saw ('' : none), what takes its place
-- Returns: 1, or 0 where somebody else was faster. O(1).
if (call('HGET', shard .. 'commands', ARGV[2]) or '') ~= ARGV[3] then return 0 end
call('HSET', shard .. 'commands', ARGV[2], ARGV[4])
return 1
