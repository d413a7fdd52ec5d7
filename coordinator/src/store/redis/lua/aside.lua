-- Puts tasks off, where they are, that the coordinator cannot read: they hold up their neighbours no longer.
--
-- ARGV: now, n × (where it is: 'l' .. lane | 'r' .. epoch of its lease | 'x' (finished), id)
-- Returns: nothing. O(n log m): m the tasks there.
local until_ms = now_ms + SET_ASIDE_MS
for at = 2, #ARGV, 2 do
  local kind, name, id = string.byte(ARGV[at]), string.sub(ARGV[at], 2), ARGV[at + 1]
  if kind == 108 then
    -- Above what its header says, by which the look for late tasks knows that it was put off.
    call('ZADD', LANE .. name, 'XX', string.format('%d', until_ms * 1000), id)
    refresh_lane(name)
    if call('EXISTS', LANE .. name) == 1 then call('ZADD', BOUNDS, 'LT', until_ms, name) end
  elseif kind == 114 then
    if call('ZSCORE', LEASES, id) == name then
      call('HSET', EXTENDED, id, struct.pack('>I6', until_ms) .. taker_of(call('HGET', EXTENDED, id)))
    end
  else
    call('ZADD', EXPIRY, 'XX', until_ms, id)
  end
end
return {}
