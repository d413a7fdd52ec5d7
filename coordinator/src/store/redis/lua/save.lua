-- Saves checkpoints that the coordinator decided about, each where its lease still holds and nothing else was saved meanwhile.
--
-- ARGV: now, then for each task: id, epoch, nonce, what its checkpoints were when that was decided (their first bytes: number and
--   ordinal; '' : there were none), what they are now ('' : they stay)
-- Returns for each: 'saved' | 'changed' (decide anew) | 'stale:' .. state | 'unknown'.
-- O(n log m): n the batch, m the leases.
local FIELDS, KEPT = 5, 16
local ids, reply, sets, grants = {}, {}, {}, {}
for at = 2, #ARGV, FIELDS do ids[#ids + 1] = ARGV[at] end
for i, epoch in ipairs(call('ZMSCORE', LEASES, unpack(ids))) do
  local id, at = ids[i], i * FIELDS - 3
  if not epoch then
    local head = call('GETRANGE', TASK .. id, '0', '1')
    reply[i] = #head < 2 and 'unknown' or 'stale:' .. string.byte(head, 2)
  else
    grants[epoch] = grants[epoch] or grant_of(epoch)
    if epoch ~= ARGV[at + 1] or string.sub(grants[epoch], 1, 8) ~= ARGV[at + 2] then
      reply[i] = 'stale:1'
    elseif call('GETRANGE', CHECKPOINT .. id, '0', KEPT - 1) ~= ARGV[at + 3] then
      reply[i] = 'changed'
    else
      reply[i] = 'saved'
      if ARGV[at + 4] ~= '' then
        sets[#sets + 1] = CHECKPOINT .. id
        sets[#sets + 1] = ARGV[at + 4]
      end
    end
  end
end
if #sets > 0 then call('MSET', unpack(sets)) end
return reply
