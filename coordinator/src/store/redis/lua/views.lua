-- Tasks as lists show them: without payload, and only the newest lines of their history.
--
-- ARGV: now, state ('' : any), room for results in bytes, ids
-- Returns for each: head ('' : no such task, or in another state), lease ('' : nobody holds it), result, history (cut).
-- O(n log m): m the leases.
local HISTORY_MAX = 8192
local state, room = ARGV[2], tonumber(ARGV[3])
local ids, reply = { unpack(ARGV, 4) }, {}
local leases = leases_of(ids)
for i, id in ipairs(ids) do
  local head = head_of(id)
  local result, history = '', ''
  if head and state ~= '' and (leases[i] ~= '' and 1 or string.byte(head, 2)) ~= tonumber(state) then head = nil end
  if head and readable(head) then
    local slot = struct.unpack('>I4', head, 39)
    local ends = #head + slot
    if string.byte(head, 2) == 2 and slot > 0 and slot <= room then
      result = call('GETRANGE', TASK .. id, #head, ends - 1)
      room = room - slot
    end
    history = call('GETRANGE', TASK .. id, ends, ends + HISTORY_MAX - 1)
  end
  reply[#reply + 1] = head or ''
  reply[#reply + 1] = head and leases[i] or ''
  reply[#reply + 1] = result
  reply[#reply + 1] = history
end
return reply
