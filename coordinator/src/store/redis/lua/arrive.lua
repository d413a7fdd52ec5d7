-- A run of an agent opened a presence connection.
--
-- KEYS[1]: what every key that there is once begins with
-- ARGV: now, run
-- Returns: the arrival: the time in µs, or a little later where the run arrived before in this moment. O(log n): n the runs
-- known.
local last = tonumber(call('ZSCORE', shard .. 'arrived', ARGV[2]) or 0)
local arrival = string.format('%d', math.max(now_us, last + 1))
call('ZADD', shard .. 'arrived', arrival, ARGV[2])
return arrival
