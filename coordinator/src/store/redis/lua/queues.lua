-- Makes or changes a queue, or pauses or resumes it.
--
-- KEYS[1]: what every key that there is once begins with
-- ARGV: now, channel, origin, 'make' (unless it is there) | 'put' | 'pause' | 'resume', name, policy
-- Returns: 1, or 0 where there is no such queue. O(1).
local name = ARGV[5]
local known = call('HEXISTS', shard .. 'queues', name) == 1
if ARGV[4] == 'make' and known then return 1 end
if ARGV[4] == 'put' or ARGV[4] == 'make' then
  call('HSET', shard .. 'queues', name, ARGV[6])
elseif not known then
  return 0
elseif ARGV[4] == 'pause' then
  call('SADD', shard .. 'paused', name)
else
  call('SREM', shard .. 'paused', name)
end
call('INCR', shard .. 'changes')
call('PUBLISH', ARGV[2], ARGV[3] .. ' !queues')
return 1
