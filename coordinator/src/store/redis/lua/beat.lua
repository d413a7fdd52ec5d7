-- A run of an agent was heard from; or it says farewell, and is gone.
--
-- KEYS[1]: what every key that there is once begins with
-- ARGV: now, run, its heartbeat, farewell (0 | 1), agent
-- Returns: the commands that stand for the agent's breakers, and what it lost lately ('' : none). O(log n): n the runs known.
local gone = ARGV[4] == '1'
call('HSET', shard .. 'agents', ARGV[2], now_ms .. ' ' .. ARGV[4] .. ' ' .. ARGV[3])
call('ZADD', shard .. (gone and 'gone' or 'seen'), now_ms, ARGV[2])
call('ZREM', shard .. (gone and 'seen' or 'gone'), ARGV[2])
return { call('HGET', shard .. 'commands', ARGV[5]) or '', call('HGET', shard .. 'lost', ARGV[5]) or '' }
