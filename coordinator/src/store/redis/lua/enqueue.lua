-- Puts new tasks on their lanes; tasks whose id is known are left as they are.
--
-- ARGV: now, channel, origin, the ordinal of the first (each next one's is one more), above the epoch of each, gated (1: the values follow in the
--   same transaction behind the gate, and all is done or nothing; 0: they are here), then groups of tasks of one lane (or of
--   none, for those that end at once)
--   lane ('' : none), counter,
--   first, deadline: when the first of them is due (µs), and a lower bound of their deadlines (ms), for a lane,
--   until when they may be made (ms, '' : at any time),
--   tasks n, n × (id, due in µs with the order of arrival below it for a lane, else ms of expiry ('' : never), not gated: value)
-- Returns: the time in µs, then for each task that is not made: its place among all, its head ('' : it is not there, and too late
--   to be made), its lease. Gated: 0 where there is such a task or the ordinals are taken, and nothing is done.
-- O(n log m): n the batch, m the tasks of a lane.
local ENTRY_MAX = 100
local gated = ARGV[5] == '1'
local fields = gated and 2 or 3
local groups, keys, sets, late, total, at = {}, {}, {}, {}, 0, 6
while at <= #ARGV do
  local group = { lane = ARGV[at], counter = ARGV[at + 1], first = tonumber(ARGV[at + 2]), deadline = ARGV[at + 3],
    tasks = tonumber(ARGV[at + 5]), from = at + 6 }
  local is_late = ARGV[at + 4] ~= '' and now_ms > tonumber(ARGV[at + 4])
  groups[#groups + 1] = group
  at = group.from + group.tasks * fields
  for p = group.from, at - 1, fields do
    total = total + 1
    keys[total] = TASK .. ARGV[p]
    if is_late then late[total] = '' end
    if not gated then sets[total * 2 - 1], sets[total * 2] = keys[total], ARGV[p + 2] end
  end
end

-- Before anything is written: the numbers, and whether the values carry them already.
local wanted, known = tonumber(ARGV[4]), {}
local reply = { string.format('%d', now_us) }
if gated then
  if next(late) then return 0 end
  if tonumber(call('GET', ORDINAL) or 0) >= wanted or call('EXISTS', unpack(keys)) > 0 then return 0 end
end
local first = take_ordinals(wanted, total)
keep_above(wanted)
if first ~= wanted then
  for place = 1, total do
    local value = sets[place * 2]
    sets[place * 2] = string.sub(value, 1, 42) .. struct.pack('>i8', first + place - 1) .. string.sub(value, 51)
  end
end
if not gated and (next(late) or call('MSETNX', unpack(sets)) == 0) then
  local fresh = {}
  for place, key in ipairs(keys) do
    local id = string.sub(key, #TASK + 1)
    known[place] = head_of(id) or late[place]
    if known[place] then
      reply[#reply + 1] = place
      reply[#reply + 1] = known[place]
      reply[#reply + 1] = leases_of({ id })[1]
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
  local adds, created, earliest = {}, 0, nil
  for p = group.from, group.from + (group.tasks - 1) * fields, fields do
    place = place + 1
    local id, score = ARGV[p], ARGV[p + 1]
    ids[place] = known[place] and '' or id
    if not known[place] then
      created = created + 1
      if group.lane == '' then
        if score ~= '' then
          expiries[#expiries + 1] = score
          expiries[#expiries + 1] = id
        end
      else
        if first ~= wanted then
          score = tonumber(score)
          score = string.format('%d', score - score % 1000 + (first + place - 1) % 1000)
        end
        adds[created * 2 - 1], adds[created * 2] = score, id
        if not gated then earliest = math.min(earliest or math.huge, tonumber(score)) end
      end
    end
  end
  changes[group.counter] = (changes[group.counter] or 0) + created
  if group.lane ~= '' and created > 0 then
    news = news .. add_to_lane(group.lane, adds, earliest or group.first, group.deadline)
  end
end
if #expiries > 0 then call('ZADD', EXPIRY, unpack(expiries)) end
-- Ids of an entry follow each other, with nothing in the place of one that was there: its number is that of its first.
for from = 1, #ids, ENTRY_MAX do
  local entry = table.concat(ids, ' ', from, math.min(from + ENTRY_MAX - 1, #ids))
  call('XADD', LOG, string.format('%d-0', first + from - 1), '', entry)
end
count(changes)
if news ~= ARGV[3] then tell(ARGV[2], news) end
-- Last: what goes wrong before it lets no value in.
if gated then call('DEL', GATE .. ARGV[3]) end
return reply
