-- Writes what the coordinator decided, task by task, where the task is still as it was when that was decided.
--
-- ARGV: now, channel, origin, the highest epoch written ('' : none), then groups of tasks that go the same way
--   from: 'l' .. lane | 'r' .. run | 'x' (finished) | '-',  to: 'l' .. lane | 'x' | '-',
--   counter before, counter after ('' : the tasks are deleted), tasks n, n × (
--     id, guard (what its value must begin with), new header and record, or the whole new value,
--     rest: 'w' (that was the whole) | '=' .. line (keeps the body; the line goes before its history)
--         | '!' .. length of the slot in 4 bytes .. slot .. line (the slot in the place of payload and result),
--     score: due in µs for a lane, ms of expiry for 'x' )
-- Returns: the time in µs, then for each task that was not changed: its place, its head ('' : there is none).
-- O(n log m): n the batch, m the tasks of a lane.
local FIELDS = 5
local groups, at = {}, 5
local reply, place, sets, deleted = { string.format('%d', now_us) }, 0, {}, {}

-- The value of a task whose body stays.
local function with_body(key, head, rest)
  local value = call('GET', key)
  local record, meta, slot = struct.unpack('>I2I2I4', value, 56)
  local from = HEADER + record
  if string.byte(rest) == 61 then
    local ends = from + meta + slot
    return head .. string.sub(value, from + 1, ends) .. string.sub(rest, 2) .. string.sub(value, ends + 1)
  end
  return head .. string.sub(value, from + 1, from + meta) .. string.sub(rest, 6) .. string.sub(value, from + meta + slot + 1)
end

while at <= #ARGV do
  local group = { from = ARGV[at], to = ARGV[at + 1], before = ARGV[at + 2], after = ARGV[at + 3], ids = {}, adds = {} }
  local count, to_lane = tonumber(ARGV[at + 4]), string.byte(ARGV[at + 1]) == 108
  local ids, adds, goes = group.ids, group.adds, group.to ~= '-'
  at = at + 5
  for p = at, at + (count - 1) * FIELDS, FIELDS do
    place = place + 1
    local id, guard, value, rest = ARGV[p], ARGV[p + 1], ARGV[p + 2], ARGV[p + 3]
    local key = TASK .. id
    if call('GETRANGE', key, 0, #guard - 1) ~= guard then
      reply[#reply + 1] = place
      reply[#reply + 1] = head_of(id) or ''
    else
      ids[#ids + 1] = id
      if group.after == '' then
        deleted[#deleted + 1] = key
      else
        sets[#sets + 1] = key
        sets[#sets + 1] = rest == 'w' and value or with_body(key, value, rest)
        if goes then
          adds[#adds + 1] = ARGV[p + 4]
          adds[#adds + 1] = id
        end
        if to_lane then
          local score, deadline = tonumber(ARGV[p + 4]), struct.unpack('>I6', value, 50)
          if not group.first or score < group.first then group.first = score end
          if not group.deadline or deadline < group.deadline then group.deadline = deadline end
        end
      end
    end
  end
  at = at + count * FIELDS
  if #ids > 0 then groups[#groups + 1] = group end
end
if #groups == 0 then return reply end

-- What Redis refuses when its memory is full comes first: nothing is half done.
if #sets > 0 then call('MSET', unpack(sets)) end
if ARGV[4] ~= '' then keep_above(tonumber(ARGV[4])) end
local news, changes = ARGV[3], {}
for _, group in ipairs(groups) do
  if group.first then
    news = news .. add_to_lane(string.sub(group.to, 2), group.adds, group.first, group.deadline)
  elseif group.to == 'x' then
    call('ZADD', EXPIRY, unpack(group.adds))
  end
  changes[group.before] = (changes[group.before] or 0) - #group.ids
  if group.after ~= '' then changes[group.after] = (changes[group.after] or 0) + #group.ids end
end
for _, group in ipairs(groups) do
  local kind, name = string.byte(group.from), string.sub(group.from, 2)
  if kind == 108 then
    if group.to ~= group.from then call('ZREM', LANE .. name, unpack(group.ids)) end
    refresh_lane(name)
  elseif kind == 114 then
    call('ZREM', LEASES .. name, unpack(group.ids))
  elseif kind == 120 and group.to ~= 'x' then
    call('ZREM', EXPIRY, unpack(group.ids))
  end
end
if #deleted > 0 then call('UNLINK', unpack(deleted)) end
count(changes)
if news ~= ARGV[3] then call('PUBLISH', ARGV[2], news) end
return reply
