-- Gives leases back that were just given and that nobody has heard of: the tasks wait again as they did.
--
-- ARGV: now, channel, origin, epoch, counter of what is leased, counter of what waits, lane, ids
-- Returns: when the first of them is due, in ms ('' : none was given back). O(n log m): n the batch, m the tasks of the lane.
local epoch, lane = ARGV[4], ARGV[7]
local asked, adds, ids, first, bound = { unpack(ARGV, 8) }, {}, {}, nil, nil
-- A lease that was given again by another coordinator, and began, was heard of.
local extended = call('HMGET', EXTENDED, unpack(asked))
for i, score in ipairs(call('ZMSCORE', LEASES, unpack(asked))) do
  local head = score == epoch and not extended[i] and call('GETRANGE', TASK .. asked[i], '0', HEADER - 1)
  if head and #head == HEADER then
    local due, deadline = struct.unpack('>I6I6', head, 23)
    local score = due * 1000 + struct.unpack('>i8', head, 43) % 1000
    adds[#adds + 1] = string.format('%d', score)
    adds[#adds + 1] = asked[i]
    ids[#ids + 1] = asked[i]
    if not first or score < first then first = score end
    if not bound or deadline < bound then bound = deadline end
  end
end
if #ids == 0 then return '' end
local news = add_to_lane(lane, adds, first, bound)
end_leases(epoch, ids)
count({ [ARGV[5]] = -#ids, [ARGV[6]] = #ids })
tell(ARGV[2], ARGV[3] .. news)
return string.format('%d', math.floor(first / 1000))
