-- Header, record and meta of tasks, and who holds them.
--
-- ARGV: now, ids
-- Returns for each: its head ('' : no such task), and its lease ('' : nobody holds it). O(n log m): m the leases.
local ids, reply = { unpack(ARGV, 2) }, {}
local leases = leases_of(ids)
for i, id in ipairs(ids) do
  local head = head_of(id)
  reply[i * 2 - 1], reply[i * 2] = head or '', head and leases[i] or ''
end
return reply
