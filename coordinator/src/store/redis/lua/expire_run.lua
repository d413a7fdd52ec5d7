-- Lets the leases of one run of an agent end now; the next look at what is over finds them.
--
-- ARGV: now, run as `agent|boot`, how many grants were looked at before, most
-- Returns: how many leases end that did not yet, how many grants were looked at, 1 if there are more to look at.
-- O(most + n): n the leases of the run, which its capacity bounds, and those of grants that it shares with runs which took
-- some over: SHARED_MAX of these at once.
local SHARED_MAX = 4000
-- Grants stand by a lower bound of their end. Those of the run move forward, so none of the others is missed.
local epochs = call('ZRANGE', ENDS, ARGV[3], ARGV[3] + ARGV[4] - 1)
if #epochs == 0 then return { 0, 0, 0 } end
local ended, looked, shared, ends = 0, 0, 0, struct.pack('>I6', now_ms)

-- Lets those of a grant's leases end that are the run's own. Returns whether there are any.
local function end_own(ids)
  local sets, own = {}, false
  for at, lease in ipairs(leases_of(ids)) do
    if string.sub(lease, 30) == ARGV[2] then
      own = true
      local kind = string.byte(lease, 29)
      if struct.unpack('>I6', lease, 23) > now_ms then
        ended = ended + 1
        if kind > 0 then
          sets[#sets + 1] = ids[at]
          sets[#sets + 1] = ends .. (kind == 2 and ARGV[2] or '')
        end
      end
    end
  end
  if #sets > 0 then call('HSET', EXTENDED, unpack(sets)) end
  return own
end

-- Those of another's grant that the run took over.
local function taken_over(ids)
  local taken = {}
  for at, extension in ipairs(#ids > 0 and call('HMGET', EXTENDED, unpack(ids)) or {}) do
    if taker_of(extension) == ARGV[2] then taken[#taken + 1] = ids[at] end
  end
  return taken
end

for i, grant in ipairs(call('HMGET', GRANTS, unpack(epochs))) do
  local claimed = grant and claimer_of(grant) == ARGV[2]
  if grant and (claimed or is_shared(grant)) then
    local epoch = epochs[i]
    local ids = call('ZRANGEBYSCORE', LEASES, epoch, epoch)
    shared = shared + (is_shared(grant) and #ids or 0)
    local own = end_own(claimed and ids or taken_over(ids))
    -- What others took over has an end of its own.
    if claimed and struct.unpack('>I6', grant, 15) > now_ms then
      call('HSET', GRANTS, epoch, string.sub(grant, 1, 14) .. ends .. string.sub(grant, 21))
    end
    if claimed or own then call('ZADD', ENDS, 'LT', string.format('%d', now_ms), epoch) end
  end
  looked = i
  if shared >= SHARED_MAX then break end
end
local more = looked < #epochs or #epochs == tonumber(ARGV[4])
return { ended, looked, more and 1 or 0 }
