-- Finished tasks whose retention is over, earliest first.
--
-- ARGV: now, most
-- Returns for each: id, its head. O(log n + most).
local reply = {}
for _, id in ipairs(call('ZRANGEBYSCORE', EXPIRY, '-inf', now_ms, 'LIMIT', 0, ARGV[2])) do
  local head = head_of(id)
  if head then
    reply[#reply + 1] = id
    reply[#reply + 1] = head
  else
    call('ZREM', EXPIRY, id)
  end
end
return reply
