-- Tasks as lists show them: without payload, and only the newest lines of their history.
--
-- ARGV: now, state ('' : any), room for results in bytes, ids
-- Returns for each: head ('' : no such task, or in another state), run as `agent|boot`, result, history (cut). O(n).
local HISTORY_MAX = 8192
local state, room = ARGV[2], tonumber(ARGV[3])
local reply = {}
for i = 4, #ARGV do
  local head = head_of(ARGV[i])
  local result, history = '', ''
  if head and state ~= '' and string.byte(head, 2) ~= tonumber(state) then head = nil end
  if head and readable(head) then
    local slot = struct.unpack('>I4', head, 60)
    local ends = #head + slot
    if string.byte(head, 2) == 2 and slot > 0 and slot <= room then
      result = call('GETRANGE', TASK .. ARGV[i], #head, ends - 1)
      room = room - slot
    end
    history = call('GETRANGE', TASK .. ARGV[i], ends, ends + HISTORY_MAX - 1)
  end
  reply[#reply + 1] = head or ''
  reply[#reply + 1] = head and holder(head) or ''
  reply[#reply + 1] = result
  reply[#reply + 1] = history
end
return reply
