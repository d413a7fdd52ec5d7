-- Puts new tasks on their lanes; tasks whose id is known are left as they are.
--
-- ARGV: now, channel, origin, lanes n, n × lane, then for each task
--   id, header without its ordinal, the rest of its value, lane (its place, 0: none), due ms, deadline ms,
--   expires ms ('' : never), counter
-- Returns: the time in µs, the first ordinal, then for each task that is there already: its place, its head.
-- O(n log m): n the batch, m the tasks of a lane.
local lanes, at = {}, 5
for i = 1, tonumber(ARGV[4]) do
  lanes[i] = { name = ARGV[at], adds = {}, first = nil, deadline = nil }
  at = at + 1
end
local FIELDS = 8
local tasks = (#ARGV - at + 1) / FIELDS
local keys = {}
for i = 1, tasks do keys[i] = TASK .. ARGV[at + (i - 1) * FIELDS] end
local known = {}
if call('EXISTS', unpack(keys)) > 0 then
  for i = 1, tasks do known[i] = head_of(ARGV[at + (i - 1) * FIELDS]) end
end

local sets, expiries, entries, changes = {}, {}, {}, {}
local reply = { string.format('%.0f', now_us), '' }
local fresh = 0
for i = 1, tasks do
  if not known[i] then fresh = fresh + 1 end
end
local ordinal = fresh > 0 and next_ordinal(fresh) or 0
reply[2] = string.format('%.0f', ordinal)
for i = 1, tasks do
  local p = at + (i - 1) * FIELDS
  if known[i] then
    reply[#reply + 1] = i
    reply[#reply + 1] = known[i]
  else
    local id = ARGV[p]
    sets[#sets + 1] = keys[i]
    sets[#sets + 1] = ARGV[p + 1] .. struct.pack('>i8', ordinal) .. ARGV[p + 2]
    local lane = lanes[tonumber(ARGV[p + 3])]
    if lane then
      local score = tonumber(ARGV[p + 4]) * 1000 + ordinal % 1000
      local adds = lane.adds
      adds[#adds + 1] = score
      adds[#adds + 1] = id
      if not lane.first or score < lane.first then lane.first = score end
      local deadline = tonumber(ARGV[p + 5])
      if not lane.deadline or deadline < lane.deadline then lane.deadline = deadline end
    elseif ARGV[p + 6] ~= '' then
      expiries[#expiries + 1] = ARGV[p + 6]
      expiries[#expiries + 1] = id
    end
    changes[ARGV[p + 7]] = (changes[ARGV[p + 7]] or 0) + 1
    entries[#entries + 1] = id
    ordinal = ordinal + 1
  end
end
if fresh == 0 then return reply end

call('MSET', unpack(sets))
local news = ARGV[3]
for _, lane in ipairs(lanes) do
  if lane.first then
    local index, rest, queue = split_lane(lane.name)
    call('ZADD', LANE .. lane.name, unpack(lane.adds))
    call('ZADD', LANES .. index, 'LT', lane.first, rest)
    call('ZADD', BOUNDS, 'LT', lane.deadline, lane.name)
    news = news .. ' ' .. queue .. ' ' .. string.format('%.0f', math.floor(lane.first / 1000))
  end
end
if #expiries > 0 then call('ZADD', EXPIRY, unpack(expiries)) end
local first = tonumber(reply[2])
for i, id in ipairs(entries) do
  call('XADD', LOG, string.format('%.0f-0', first + i - 1), '', id)
end
count(changes)
if news ~= ARGV[3] then call('PUBLISH', ARGV[2], news) end
return reply
