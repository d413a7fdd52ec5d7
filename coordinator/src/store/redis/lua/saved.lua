-- How far tasks came, with their heads and who holds them, and the blobs that lie in the place of payloads and results.
--
-- ARGV: now, ids
-- Returns for each: its head ('' : no such task), its lease ('' : nobody holds it), the reference to a blob in its slot ('' : none),
--   what is kept of its checkpoints ('' : nothing). O(n log m): m the leases.
local ids, reply = { unpack(ARGV, 2) }, {}
local leases = leases_of(ids)
for i, id in ipairs(ids) do
  local head, reference = head_of(id), ''
  if head and readable(head) then
    local slot = struct.unpack('>I4', head, 39)
    if slot > 0 and call('GETRANGE', TASK .. id, #head, #head) == '@' then
      reference = call('GETRANGE', TASK .. id, #head, #head + slot - 1)
    end
  end
  reply[i * 4 - 3], reply[i * 4 - 2] = head or '', head and leases[i] or ''
  reply[i * 4 - 1], reply[i * 4] = reference, head and call('GET', CHECKPOINT .. id) or ''
end
return reply
