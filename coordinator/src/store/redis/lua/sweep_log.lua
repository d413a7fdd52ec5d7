-- Drops entries of the log whose tasks are all forgotten, a stretch at a time, round and round.
--
-- ARGV: now, most entries
-- Returns: how many were dropped. O(most × tasks of an entry).
local last = call('GET', SWEPT) or '0-0'
local entries = call('XRANGE', LOG, '(' .. last, '+', 'COUNT', ARGV[2])
local dropped = {}
for _, entry in ipairs(entries) do
  local keys = {}
  for id in string.gmatch(entry[2][2], '[^ ]+') do keys[#keys + 1] = TASK .. id end
  if #keys == 0 or call('EXISTS', unpack(keys)) == 0 then dropped[#dropped + 1] = entry[1] end
  last = entry[1]
end
if #entries < tonumber(ARGV[2]) then last = '0-0' end
call('SET', SWEPT, last)
if #dropped > 0 then call('XDEL', LOG, unpack(dropped)) end
return #dropped
