-- Gives leases back that were just given and that nobody has heard of: the tasks wait again as they did.
--
-- ARGV: now, channel, origin, run, counter of what is leased, counter of what waits, lane, n × (id, guard (what the task's
--   value must begin with))
-- Returns: when the first of them is due, in ms ('' : none was given back). O(n log m): n the batch, m the tasks of the lane.
local lane, adds, ids, first, bound = ARGV[7], {}, {}, nil, nil
for at = 8, #ARGV, 2 do
  local id = ARGV[at]
  local head = call('GETRANGE', TASK .. id, 0, HEADER - 1)
  if #head == HEADER and string.sub(head, 1, #ARGV[at + 1]) == ARGV[at + 1] then
    -- The epoch stays, and belongs to no lease any more.
    call('SETRANGE', TASK .. id, 1, struct.pack('>Bc8I8', 0, string.sub(head, 3, 10), 0))
    local due, deadline = struct.unpack('>I6I6', head, 44)
    local score = due * 1000 + struct.unpack('>i8', head, 64) % 1000
    adds[#adds + 1] = string.format('%d', score)
    adds[#adds + 1] = id
    ids[#ids + 1] = id
    if not first or score < first then first = score end
    if not bound or deadline < bound then bound = deadline end
  end
end
if #ids == 0 then return '' end
local news = add_to_lane(lane, adds, first, bound)
call('ZREM', LEASES .. ARGV[4], unpack(ids))
count({ [ARGV[5]] = -#ids, [ARGV[6]] = #ids })
call('PUBLISH', ARGV[2], ARGV[3] .. news)
return string.format('%d', math.floor(first / 1000))
