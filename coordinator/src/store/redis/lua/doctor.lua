-- Tries every command that the store sends or its scripts call, on keys of its own, which it removes: what a user may
-- not do is found before it matters. A test holds that none is left out.
--
-- ARGV: now
-- Returns: the library that is missing ('' : none), then for each refused command: its name, what the server said.
local at = shard .. 'doctor:'
local text, hash, set, zset, stream = at .. 'text', at .. 'hash', at .. 'set', at .. 'zset', at .. 'stream'
local trials = {
  { 'SET', text, '7', 'PX', '60000' }, { 'GET', text },
  { 'GETRANGE', text, 0, 1 }, { 'MSET', text, '7' }, { 'MSETNX', text, '7' }, { 'MGET', text }, { 'EXISTS', text },
  { 'HSET', hash, 'f', '7' }, { 'HSETNX', hash, 'f', '7' }, { 'HGET', hash, 'f' }, { 'HGETALL', hash },
  { 'HEXISTS', hash, 'f' }, { 'HMGET', hash, 'f' }, { 'HINCRBY', hash, 'f', 1 }, { 'HDEL', hash, 'f' },
  { 'SADD', set, 'm' }, { 'SISMEMBER', set, 'm' }, { 'SMEMBERS', set }, { 'SREM', set, 'm' },
  { 'ZADD', zset, 'LT', 7, 'm' }, { 'ZRANGE', zset, 0, -1 }, { 'ZRANGEBYSCORE', zset, '-inf', '+inf', 'LIMIT', 0, 1 },
  { 'ZCARD', zset }, { 'ZCOUNT', zset, '-inf', '+inf' }, { 'ZMSCORE', zset, 'm' }, { 'ZSCORE', zset, 'm' }, { 'ZREM', zset, 'm' },
  { 'ZREMRANGEBYRANK', zset, 0, 0 }, { 'ZREMRANGEBYSCORE', zset, 7, 7 },
  { 'XADD', stream, '1-0', '', 'm' }, { 'XREVRANGE', stream, '+', '-' }, { 'XRANGE', stream, '-', '+' }, { 'XDEL', stream, '1-0' },
  { 'DEL', text },
  { 'UNLINK', text, hash, set, zset, stream },
}

-- A name that is not there must not be looked up in the usual way: that is an error of its own.
local reply = { '' }
for _, library in ipairs({ 'cmsgpack', 'struct' }) do
  if rawget(_G, library) == nil then reply[1] = library end
end
for _, trial in ipairs(trials) do
  local answer = redis.pcall(unpack(trial))
  if type(answer) == 'table' and answer.err then
    reply[#reply + 1] = trial[1]
    reply[#reply + 1] = answer.err
  end
end
return reply
