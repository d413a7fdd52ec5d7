-- Starts leases or makes them longer, never shorter; and lets runs take them over that nobody else has started.
--
-- ARGV: now, then for each lease: id, epoch, nonce, length in ms, the run that it belongs to from now on ('' : it stays whose it is)
-- Returns for each: the ms at which it ends | 'stale:' .. state | 'unknown'.
-- O(n log m): n the batch, m the leases.
local FIELDS = 5
local ids, reply, sets, grants, shared = {}, {}, {}, {}, {}
for at = 2, #ARGV, FIELDS do ids[#ids + 1] = ARGV[at] end
local epochs, extended = call('ZMSCORE', LEASES, unpack(ids)), call('HMGET', EXTENDED, unpack(ids))

-- Whose the lease is after it: '' : of the run that claimed it.
local function taker(epoch, extension, run)
  if run == '' then return taker_of(extension) end
  if run == claimer_of(grants[epoch]) then return '' end
  if not is_shared(grants[epoch]) then
    grants[epoch] = grants[epoch] .. '|'
    shared[#shared + 1] = epoch
    shared[#shared + 1] = grants[epoch]
  end
  return run
end

-- Whether another run began with the lease: a message that came twice starts nothing twice.
local function is_others(epoch, extension, run)
  if run == '' or not extension then return false end
  local holder = taker_of(extension)
  return (holder == '' and claimer_of(grants[epoch]) or holder) ~= run
end

for i, id in ipairs(ids) do
  local at, epoch = i * FIELDS - 3, epochs[i]
  if not epoch then
    local head = call('GETRANGE', TASK .. id, '0', '1')
    reply[i] = #head < 2 and 'unknown' or 'stale:' .. string.byte(head, 2)
  else
    grants[epoch] = grants[epoch] or grant_of(epoch)
    if epoch ~= ARGV[at + 1] or string.sub(grants[epoch], 1, 8) ~= ARGV[at + 2]
      or is_others(epoch, extended[i], ARGV[at + 4]) then
      reply[i] = 'stale:1'
    else
      local ends = struct.unpack('>I6', extended[i] or string.sub(grants[epoch], 15, 20))
      ends = math.max(ends, now_ms + tonumber(ARGV[at + 3]))
      sets[#sets + 1] = id
      sets[#sets + 1] = struct.pack('>I6', ends) .. taker(epoch, extended[i], ARGV[at + 4])
      reply[i] = ends
    end
  end
end
-- First: a grant that says so without need costs a look.
if #shared > 0 then call('HSET', GRANTS, unpack(shared)) end
-- When a grant is looked at is a lower bound, and stays.
if #sets > 0 then call('HSET', EXTENDED, unpack(sets)) end
return reply
