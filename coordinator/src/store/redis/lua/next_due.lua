-- When each queue's next task is due.
--
-- ARGV: now, queues
-- Returns for each: ms ('' : nothing waits). O(queues).
local LANES_SEEN = 16
local reply = {}
for i = 2, #ARGV do
  local first
  for rank = 0, 2 do
    local index = rank .. '|' .. ARGV[i]
    -- Lanes at or before now stand in order of their last visit: the first few are looked into.
    for _, rest in ipairs(call('ZRANGE', LANES .. index, 0, LANES_SEEN - 1)) do
      local head = call('ZRANGE', LANE .. index .. '|' .. rest, 0, 0, 'WITHSCORES')
      if #head > 0 and (not first or tonumber(head[2]) < first) then first = tonumber(head[2]) end
    end
  end
  reply[#reply + 1] = first and string.format('%d', math.floor(first / 1000)) or ''
end
return reply
