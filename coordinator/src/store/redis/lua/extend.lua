-- Starts leases or makes them longer, never shorter.
--
-- ARGV: now, then for each lease: id, epoch, nonce, length in ms
-- Returns for each: the ms at which it ends | 'stale:' .. state | 'unknown'.
-- O(n log m): n the batch, m the leases.
local ids, reply, sets, grants = {}, {}, {}, {}
for at = 2, #ARGV, 4 do ids[#ids + 1] = ARGV[at] end
local epochs, extended = call('ZMSCORE', LEASES, unpack(ids)), call('HMGET', EXTENDED, unpack(ids))
for i, id in ipairs(ids) do
  local at, epoch = i * 4 - 2, epochs[i]
  if not epoch then
    local head = call('GETRANGE', TASK .. id, '0', '1')
    reply[i] = #head < 2 and 'unknown' or 'stale:' .. string.byte(head, 2)
  else
    local grant = grants[epoch] or grant_of(epoch)
    grants[epoch] = grant
    if epoch ~= ARGV[at + 1] or string.sub(grant, 1, 8) ~= ARGV[at + 2] then
      reply[i] = 'stale:1'
    else
      local ends = struct.unpack('>I6', extended[i] or string.sub(grant, 15, 20))
      ends = math.max(ends, now_ms + tonumber(ARGV[at + 3]))
      sets[#sets + 1] = id
      sets[#sets + 1] = struct.pack('>I6', ends)
      reply[i] = ends
    end
  end
end
-- When a grant is looked at is a lower bound, and stays.
if #sets > 0 then call('HSET', EXTENDED, unpack(sets)) end
return reply
