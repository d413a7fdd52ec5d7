-- Marks runs as gone that have been silent for too long, and forgets those that were gone for long enough, with the commands
-- to, and losses of, agents of which no run is known any more, and arrivals as old: what broke before the run came back was noticed long ago.
--
-- KEYS[1]: what every key that there is once begins with
-- ARGV: now, silent (ms: runs last heard from before it are; '' : none), forget (the same, of those gone; '' : none), runs
-- Returns: ms when the run was heard from that has been silent longest ('' : none is there), then the runs that are gone
-- now and were not, of those given. O(n log m): n the runs given or forgotten, m those known; and O(m) where some are
-- forgotten and commands stand.
local MOST = 1000
local reply = { '' }
if ARGV[2] ~= '' then
  for i = 4, #ARGV do
    local run = ARGV[i]
    local seen = tonumber(call('ZSCORE', shard .. 'seen', run) or '')
    if seen and seen < tonumber(ARGV[2]) then
      local known = call('HGET', shard .. 'agents', run) or ''
      call('HSET', shard .. 'agents', run, (string.gsub(known, '^(%d+) %d', '%1 1', 1)))
      call('ZADD', shard .. 'gone', seen, run)
      call('ZREM', shard .. 'seen', run)
      reply[#reply + 1] = run
    end
  end
end
if ARGV[3] ~= '' then
  local forgotten = call('ZRANGEBYSCORE', shard .. 'gone', '-inf', '(' .. ARGV[3], 'LIMIT', 0, MOST)
  if #forgotten > 0 then
    call('HDEL', shard .. 'agents', unpack(forgotten))
    call('ZREM', shard .. 'gone', unpack(forgotten))
    local known
    for _, hash in ipairs({ shard .. 'commands', shard .. 'lost' }) do
      local agents = call('HGETALL', hash)
      if #agents > 0 and not known then
        known = {}
        local runs = call('HGETALL', shard .. 'agents')
        for i = 1, #runs, 2 do known[string.match(runs[i], '^[^|]*')] = true end
      end
      for i = 1, #agents, 2 do
        if not known[agents[i]] then call('HDEL', hash, agents[i]) end
      end
    end
  end
  local before = string.format('(%d', tonumber(ARGV[3]) * 1000)
  local old = call('ZRANGEBYSCORE', shard .. 'arrived', '-inf', before, 'LIMIT', 0, MOST)
  if #old > 0 then call('ZREM', shard .. 'arrived', unpack(old)) end
end
local oldest = call('ZRANGE', shard .. 'seen', 0, 0, 'WITHSCORES')
if #oldest > 0 then reply[1] = oldest[2] end
return reply
