-- Header, record and meta of tasks, and who holds them.
--
-- ARGV: now, ids
-- Returns for each: its head ('' : no such task), and its run as `agent|boot` ('' : nobody). O(n).
local reply = {}
for i = 2, #ARGV do
  local head = head_of(ARGV[i])
  reply[#reply + 1] = head or ''
  reply[#reply + 1] = head and holder(head) or ''
end
return reply
