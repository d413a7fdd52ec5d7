-- Finished tasks whose retention is over, earliest first.
--
-- ARGV: now, most
-- Returns for each: id, its head ('' : it is gone already). O(log n + most).
local reply = {}
for _, id in ipairs(call('ZRANGEBYSCORE', EXPIRY, '-inf', now_ms, 'LIMIT', 0, ARGV[2])) do
  local head = head_of(id)
  if head and string.byte(head) ~= VERSION then
    call('ZADD', EXPIRY, now_ms + SET_ASIDE_MS, id)
  elseif head then
    reply[#reply + 1] = id
    reply[#reply + 1] = head
  else
    call('ZREM', EXPIRY, id)
  end
end
return reply
