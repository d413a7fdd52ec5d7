-- Makes a queue, or pauses or resumes it.
--
-- KEYS[1]: what every key that there is once begins with
-- ARGV: now, channel, origin, 'make' (unless it is there) | 'pause' | 'resume', name, policy
-- Returns: 1, or 0 where there is no such queue. O(1).
local name = ARGV[5]
local known = call('HEXISTS', shard .. 'queues', name) == 1
if ARGV[4] == 'make' and known then return 1 end
if ARGV[4] ~= 'make' and not known then return 0 end
-- Unlike all before it, also those that a failover or a restore has undone: a time, not a count.
local last = tonumber(call('GET', shard .. 'changes') or 0)
call('SET', shard .. 'changes', string.format('%d', math.max(now_us, last + 1)))
if ARGV[4] == 'make' then
  call('HSET', shard .. 'queues', name, ARGV[6])
elseif ARGV[4] == 'pause' then
  call('SADD', shard .. 'paused', name)
else
  call('SREM', shard .. 'paused', name)
end
call('PUBLISH', ARGV[2], ARGV[3] .. ' !queues')
return 1
