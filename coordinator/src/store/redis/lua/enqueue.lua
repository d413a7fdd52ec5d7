-- Puts new tasks on their lanes; tasks whose id is known are left as they are.
--
-- ARGV: now, channel, origin, the ordinal of the first (each next one's is one more), then groups of tasks of one lane (or
--   of none, for those that end at once)
--   lane ('' : none), counter, tasks n, n × (id, value, expires ms ('' : never))
-- Returns: the time in µs, then for each task that is there already: its place among all, its head.
-- O(n log m): n the batch, m the tasks of a lane.
local FIELDS, ENTRY_MAX = 3, 100
local groups, keys, sets, at = {}, {}, {}, 5
while at <= #ARGV do
  local group = { lane = ARGV[at], counter = ARGV[at + 1], tasks = tonumber(ARGV[at + 2]), from = at + 3 }
  groups[#groups + 1] = group
  for p = group.from, group.from + (group.tasks - 1) * FIELDS, FIELDS do
    local key = TASK .. ARGV[p]
    keys[#keys + 1] = key
    sets[#sets + 1] = key
    sets[#sets + 1] = ARGV[p + 1]
  end
  at = group.from + group.tasks * FIELDS
end

-- Before anything is written: the numbers, and whether the values carry them already.
local wanted = tonumber(ARGV[4])
local first = take_ordinals(wanted, #keys)
if first ~= wanted then
  for place = 1, #keys do
    local value = sets[place * 2]
    sets[place * 2] = string.sub(value, 1, 63) .. struct.pack('>i8', first + place - 1) .. string.sub(value, 72)
  end
end
local reply, known = { string.format('%d', now_us) }, {}
if call('MSETNX', unpack(sets)) == 0 then
  local fresh = {}
  for place, key in ipairs(keys) do
    known[place] = head_of(string.sub(key, #TASK + 1))
    if known[place] then
      reply[#reply + 1] = place
      reply[#reply + 1] = known[place]
    else
      fresh[#fresh + 1] = key
      fresh[#fresh + 1] = sets[place * 2]
    end
  end
  if #fresh == 0 then return reply end
  call('MSET', unpack(fresh))
end

local place, news, changes, expiries, ids = 0, ARGV[3], {}, {}, {}
for _, group in ipairs(groups) do
  local adds, waits, created, earliest, bound = {}, group.lane ~= '', 0, nil, nil
  for p = group.from, group.from + (group.tasks - 1) * FIELDS, FIELDS do
    place = place + 1
    local id = ARGV[p]
    ids[place] = known[place] and '' or id
    if not known[place] then
      created = created + 1
      if waits then
        local due, deadline = struct.unpack('>I6I6', ARGV[p + 1], 44)
        local score = due * 1000 + (first + place - 1) % 1000
        adds[#adds + 1] = string.format('%d', score)
        adds[#adds + 1] = id
        if not earliest or score < earliest then earliest = score end
        if not bound or deadline < bound then bound = deadline end
      elseif ARGV[p + 2] ~= '' then
        expiries[#expiries + 1] = ARGV[p + 2]
        expiries[#expiries + 1] = id
      end
    end
  end
  changes[group.counter] = (changes[group.counter] or 0) + created
  if earliest then news = news .. add_to_lane(group.lane, adds, earliest, bound) end
end
if #expiries > 0 then call('ZADD', EXPIRY, unpack(expiries)) end
-- Ids of an entry follow each other, with nothing in the place of one that was there: its number is that of its first.
for from = 1, #ids, ENTRY_MAX do
  local entry = table.concat(ids, ' ', from, math.min(from + ENTRY_MAX - 1, #ids))
  call('XADD', LOG, string.format('%d-0', first + from - 1), '', entry)
end
count(changes)
if news ~= ARGV[3] then call('PUBLISH', ARGV[2], news) end
return reply
