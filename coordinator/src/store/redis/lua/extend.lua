-- Starts leases or makes them longer, never shorter.
--
-- ARGV: now, then for each lease: id, guard (what the task's value must begin with), length in ms
-- Returns for each: the ms at which it ends | 'stale:' .. state | 'unknown'.
-- O(n log m): n the batch, m the leases of a run.
local reply, adds = {}, {}
for at = 2, #ARGV, 3 do
  local id = ARGV[at]
  local head = call('GETRANGE', TASK .. id, 0, HEADER - 1)
  local place = #reply + 1
  if #head < HEADER then
    reply[place] = 'unknown'
  elseif string.sub(head, 1, #ARGV[at + 1]) ~= ARGV[at + 1] then
    reply[place] = 'stale:' .. string.byte(head, 2)
  else
    local ends = math.max(struct.unpack('>I6', head, 20), now_ms + tonumber(ARGV[at + 2]))
    call('SETRANGE', TASK .. id, 18, struct.pack('>BI6', 1, ends))
    local run = string.sub(head, 32, 39)
    adds[run] = adds[run] or {}
    table.insert(adds[run], ends)
    table.insert(adds[run], id)
    reply[place] = ends
  end
end
for run, pairs_of_run in pairs(adds) do
  call('ZADD', LEASES .. run, unpack(pairs_of_run))
end
return reply
