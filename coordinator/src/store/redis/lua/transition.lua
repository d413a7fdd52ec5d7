-- Writes what the coordinator decided, task by task, where the task is still as it was when that was decided.
--
-- ARGV: now, channel, origin, lanes n, n × lane, runs n, n × run, then for each task
--   id, guard (what its value must begin with),
--   new header and record; '' : the task is deleted,
--   body: '=' keeps it; '!' .. slot puts that into the place of payload and result; '*' .. body replaces all after the record,
--   a line for the beginning of its history ('' : none),
--   from: 'l' .. place of its lane | 'r' .. place of its run | 'x' (finished) | '-',
--   to: 'l' .. place of a lane | 'x' | '-',
--   score (due in µs for a lane, ms of expiry for 'x'), deadline ms, counter before, counter after ('' : none)
-- Returns: the time in µs, then for each task that was not changed: its place, its head ('' : there is none).
-- O(n log m): n the batch, m the tasks of a lane.
local lanes, runs, at = {}, {}, 5
for i = 1, tonumber(ARGV[4]) do
  lanes[i] = { name = ARGV[at], adds = {}, removes = {}, first = nil, deadline = nil }
  at = at + 1
end
local many = tonumber(ARGV[at])
at = at + 1
for i = 1, many do
  runs[i] = { name = ARGV[at], removes = {} }
  at = at + 1
end
local FIELDS = 11
local tasks = (#ARGV - at + 1) / FIELDS

local reply, values = { string.format('%.0f', now_us) }, {}
for i = 1, tasks do
  local p = at + (i - 1) * FIELDS
  local value = call('GET', TASK .. ARGV[p])
  if value and string.sub(value, 1, #ARGV[p + 1]) == ARGV[p + 1] then
    values[i] = value
  else
    reply[#reply + 1] = i
    reply[#reply + 1] = value and head_of(ARGV[p]) or ''
  end
end

-- What Redis refuses when its memory is full comes first: nothing is half done.
local changes, expiries, finished, deleted, entries = {}, {}, {}, {}, {}
for i = 1, tasks do
  local value, p = values[i], at + (i - 1) * FIELDS
  if value then
    local id, head, body, line = ARGV[p], ARGV[p + 2], ARGV[p + 3], ARGV[p + 4]
    if head == '' then
      deleted[#deleted + 1] = TASK .. id
      entries[#entries + 1] = string.format('%.0f-0', struct.unpack('>i8', value, 64))
    else
      local mode = string.byte(body)
      if mode == 42 then
        call('SET', TASK .. id, head .. string.sub(body, 2))
      else
        local record, meta, slot = struct.unpack('>I2I2I4', value, 56)
        local from = HEADER + record
        if mode == 61 then
          local ends = from + meta + slot
          call('SET', TASK .. id, head .. string.sub(value, from + 1, ends) .. line .. string.sub(value, ends + 1))
        else
          call('SET', TASK .. id, head .. string.sub(value, from + 1, from + meta) .. string.sub(body, 2) .. line
            .. string.sub(value, from + meta + slot + 1))
        end
      end
    end
    local to, score = ARGV[p + 6], ARGV[p + 7]
    local kind = string.byte(to)
    if kind == 108 then
      local lane = lanes[tonumber(string.sub(to, 2))]
      local adds = lane.adds
      adds[#adds + 1] = score
      adds[#adds + 1] = id
      score = tonumber(score)
      if not lane.first or score < lane.first then lane.first = score end
      local deadline = tonumber(ARGV[p + 8])
      if not lane.deadline or deadline < lane.deadline then lane.deadline = deadline end
    elseif kind == 120 then
      expiries[#expiries + 1] = score
      expiries[#expiries + 1] = id
    end
    local from = ARGV[p + 5]
    kind = string.byte(from)
    if kind == 108 then
      local lane = lanes[tonumber(string.sub(from, 2))]
      lane.left = true
      if to ~= from then lane.removes[#lane.removes + 1] = id end
    elseif kind == 114 then
      local removes = runs[tonumber(string.sub(from, 2))].removes
      removes[#removes + 1] = id
    elseif kind == 120 and string.byte(to) ~= 120 then
      finished[#finished + 1] = id
    end
    changes[ARGV[p + 9]] = (changes[ARGV[p + 9]] or 0) - 1
    if ARGV[p + 10] ~= '' then changes[ARGV[p + 10]] = (changes[ARGV[p + 10]] or 0) + 1 end
  end
end

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
for _, lane in ipairs(lanes) do
  if #lane.removes > 0 then call('ZREM', LANE .. lane.name, unpack(lane.removes)) end
  if lane.left then refresh_lane(lane.name) end
end
for _, run in ipairs(runs) do
  if #run.removes > 0 then call('ZREM', LEASES .. run.name, unpack(run.removes)) end
end
if #finished > 0 then call('ZREM', EXPIRY, unpack(finished)) end
if #deleted > 0 then
  call('UNLINK', unpack(deleted))
  call('XDEL', LOG, unpack(entries))
end
count(changes)
if news ~= ARGV[3] then call('PUBLISH', ARGV[2], news) end
return reply
