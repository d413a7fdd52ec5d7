-- What is kept of an agent beside its heartbeats is replaced, if it is still what the caller saw.
--
-- KEYS[1]: what every key that there is once begins with
-- ARGV: now, hash ('commands' | 'lost'), agent, what the caller saw ('' : none), what takes its place ('' : nothing)
-- Returns: 1, or 0 where somebody else was faster. O(1).
local hash = shard .. ARGV[2]
if (call('HGET', hash, ARGV[3]) or '') ~= ARGV[4] then return 0 end
if ARGV[5] == '' then call('HDEL', hash, ARGV[3]) else call('HSET', hash, ARGV[3], ARGV[5]) end
return 1
