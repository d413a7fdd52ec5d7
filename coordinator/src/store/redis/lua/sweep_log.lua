-- Drops entries of the log whose tasks are all forgotten, a stretch at a time, round and round.
--
-- ARGV: now, most entries
-- Returns: how many it looked at, and 1 if there are more, 0 if it came to the end and begins anew next time.
-- O(IDS_MAX + tasks of some entries).
local IDS_MAX, PAGE = 2000, 16
local most, last, ids, looked, more = tonumber(ARGV[2]), call('GET', SWEPT) or '0-0', 0, 0, 1
local dropped = {}
while more == 1 and ids < IDS_MAX and looked < most do
  local wanted = math.min(PAGE, most - looked)
  local entries = call('XRANGE', LOG, '(' .. last, '+', 'COUNT', wanted)
  local seen = 0
  for _, entry in ipairs(entries) do
    if ids >= IDS_MAX then break end
    local keys = {}
    for id in string.gmatch(entry[2][2], '[^ ]+') do keys[#keys + 1] = TASK .. id end
    if #keys == 0 or call('EXISTS', unpack(keys)) == 0 then dropped[#dropped + 1] = entry[1] end
    ids, seen, last = ids + #keys, seen + 1, entry[1]
  end
  looked = looked + seen
  if #entries < wanted and seen == #entries then more, last = 0, '0-0' end
end
call('SET', SWEPT, last)
if #dropped > 0 then call('XDEL', LOG, unpack(dropped)) end
return { looked, more }
