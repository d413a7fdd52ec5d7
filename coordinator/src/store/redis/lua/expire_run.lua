-- Lets the leases of one run of an agent end now; the next look at what is over finds them.
--
-- ARGV: now, run as `agent|boot`, how many grants were looked at before, most
-- Returns: how many leases end that did not yet, how many grants were looked at. O(most + n): n the leases of the run, which
-- its capacity bounds.
-- Grants stand by a lower bound of their end. Those of the run move forward, so none of the others is missed.
local epochs = call('ZRANGE', ENDS, ARGV[3], ARGV[3] + ARGV[4] - 1)
if #epochs == 0 then return { 0, 0 } end
local ended, ends = 0, struct.pack('>I6', now_ms)
for i, grant in ipairs(call('HMGET', GRANTS, unpack(epochs))) do
  if grant and string.sub(grant, 21) == ARGV[2] then
    local epoch = epochs[i]
    local ids, sets = call('ZRANGEBYSCORE', LEASES, epoch, epoch), {}
    for at, lease in ipairs(leases_of(ids)) do
      if struct.unpack('>I6', lease, 23) > now_ms then
        ended = ended + 1
        if string.byte(lease, 29) == 1 then
          sets[#sets + 1] = ids[at]
          sets[#sets + 1] = ends
        end
      end
    end
    if #sets > 0 then call('HSET', EXTENDED, unpack(sets)) end
    if struct.unpack('>I6', grant, 15) > now_ms then
      call('HSET', GRANTS, epoch, string.sub(grant, 1, 14) .. ends .. ARGV[2])
    end
    call('ZADD', ENDS, 'LT', string.format('%d', now_ms), epoch)
  end
end
return { ended, #epochs }
