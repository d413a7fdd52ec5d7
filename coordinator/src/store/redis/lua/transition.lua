-- Writes what the coordinator decided, task by task, where the task is still as it was when that was decided.
--
-- ARGV: now, channel, origin, the highest epoch written ('' : none), gated (1: what is written follows in the same
--   transaction behind the gate, and all is done or nothing; 0: it is here), then groups of tasks that go the same way
--   from: 'l' .. lane | 'r' .. epoch of the lease | 'x' (finished) | '-',  to: 'l' .. lane | 'x' | '-',
--   counter before, counter after ('' : the tasks are deleted),
--   first, deadline: when the first of them is due (µs), and a lower bound of their deadlines (ms), for a lane,
--   nonce of the lease, who holds it (a run; '' : who claimed it), guarded (0 | 1), tasks n, n × (
--     id, score: due in µs for a lane, ms of expiry for 'x',
--     guarded: of a lease, what its extension was; else the header
--     not gated: new header and record, or the whole new value,
--       rest: 'w' (that was the whole) | '=' .. line (keeps the body; the line goes before its history)
--         | '!' .. length of the slot in 4 bytes .. slot .. line (the slot in the place of payload and result) )
-- Returns: the time in µs, then for each task that was not changed: its place, its head ('' : there is none), its lease.
--   Gated: 0 where one was not, and nothing is done.
-- O(n log m): n the batch, m the tasks of a lane.
local gated = ARGV[5] == '1'
local groups, at, place = {}, 6, 0
local reply, sets, written, deleted = { string.format('%d', now_us) }, {}, 0, {}

-- The value of a task whose body stays; nil where there is none.
local function with_body(key, head, rest)
  local value = call('GET', key)
  if not value or #value < HEADER then return nil end
  local record, meta, slot = struct.unpack('>I2I2I4', value, 35)
  local from = HEADER + record
  if string.byte(rest) == 61 then
    local ends = from + meta + slot
    return head .. string.sub(value, from + 1, ends) .. string.sub(rest, 2) .. string.sub(value, ends + 1)
  end
  return head .. string.sub(value, from + 1, from + meta) .. string.sub(rest, 6) .. string.sub(value, from + meta + slot + 1)
end

-- Whether these are all the leases of a grant. A claim that is settled at once is the rule, and this the cheap way to know.
local function is_all(epoch, ids)
  if call('ZCOUNT', LEASES, epoch, epoch) ~= #ids then return false end
  local asked = {}
  for _, id in ipairs(ids) do asked[id] = true end
  for _, id in ipairs(call('ZRANGEBYSCORE', LEASES, epoch, epoch)) do
    if not asked[id] then return false end
  end
  return true
end

-- Whose a lease is of which the one who claimed it may say so, or that nobody took it over.
local function holder(grant, taker)
  return taker == '' and claimer_of(grant) or taker
end

-- For each of the tasks, whether it is as it was; and whether they are all of their grant.
local function unchanged(group, ids, guards)
  local same, kind, name = {}, string.byte(group.from), string.sub(group.from, 2)
  if kind == 114 then
    local grant = grant_of(name)
    local good, shared = string.sub(grant, 1, 8) == group.nonce, is_shared(grant)
    local all = good and not guards and is_all(name, ids)
    if all and not shared then
      for i = 1, #ids do same[i] = true end
      return same, true
    end
    local extended = (guards or shared) and call('HMGET', EXTENDED, unpack(ids))
    local epochs = not all and call('ZMSCORE', LEASES, unpack(ids))
    for i = 1, #ids do
      same[i] = good and (all or epochs[i] == name)
      if same[i] and guards then
        same[i] = (extended[i] or '') == guards[i]
      elseif same[i] and shared then
        same[i] = holder(grant, taker_of(extended[i])) == holder(grant, group.holder)
      end
    end
    return same, all
  end
  -- What waits is in its lane: a lease does not change its header.
  local waits = kind == 108 and call('ZMSCORE', LANE .. name, unpack(ids))
  for i, id in ipairs(ids) do
    same[i] = (not waits or waits[i]) and call('GETRANGE', TASK .. id, '0', HEADER - 1) == guards[i]
  end
  return same
end

while at <= #ARGV do
  local group = { from = ARGV[at], to = ARGV[at + 1], before = ARGV[at + 2], after = ARGV[at + 3],
    first = tonumber(ARGV[at + 4]), deadline = ARGV[at + 5], nonce = ARGV[at + 6], holder = ARGV[at + 7],
    ids = {}, adds = {}, count = 0 }
  local guards, n, asked = ARGV[at + 8] == '1' and {} or nil, tonumber(ARGV[at + 9]), {}
  local fields = (guards and 3 or 2) + (gated and 0 or 2)
  at = at + 10
  for i = 1, n do
    asked[i] = ARGV[at + (i - 1) * fields]
    if guards then guards[i] = ARGV[at + (i - 1) * fields + 2] end
  end
  local same, all = unchanged(group, asked, guards)
  local earliest
  for i, id in ipairs(asked) do
    place = place + 1
    local key, value = TASK .. id, nil
    if same[i] and not gated and group.after ~= '' then
      local rest = ARGV[at + fields - 1]
      value = ARGV[at + fields - 2]
      if rest ~= 'w' then value = with_body(key, value, rest) end
      same[i] = value ~= nil
    end
    if same[i] then
      local count = group.count
      group.count, group.ids[count + 1] = count + 1, id
      group.adds[count * 2 + 1], group.adds[count * 2 + 2] = ARGV[at + 1], id
      if not gated then earliest = math.min(earliest or math.huge, tonumber(ARGV[at + 1])) end
      if group.after == '' then
        deleted[#deleted + 1] = key
        deleted[#deleted + 1] = CHECKPOINT .. id
      elseif gated then
        written = written + 1
        sets[written] = key
      else
        sets[written + 1], sets[written + 2] = key, value
        written = written + 2
      end
    elseif gated then
      return 0
    else
      reply[#reply + 1] = place
      reply[#reply + 1] = head_of(id) or ''
      reply[#reply + 1] = leases_of({ id })[1]
    end
    at = at + fields
  end
  group.first = earliest or group.first
  group.all = all and group.count == n
  if group.count > 0 then groups[#groups + 1] = group end
end
if #groups == 0 then return reply end

-- What Redis refuses when its memory is full comes first: nothing is half done. (A transaction is refused as a whole.)
if gated then
  call('DEL', GATE .. ARGV[3], unpack(sets))
elseif written > 0 then
  call('MSET', unpack(sets))
end
if ARGV[4] ~= '' then keep_above(tonumber(ARGV[4])) end
local news, changes = ARGV[3], {}
for _, group in ipairs(groups) do
  if string.byte(group.to) == 108 then
    news = news .. add_to_lane(string.sub(group.to, 2), group.adds, group.first, group.deadline)
  elseif group.to == 'x' then
    call('ZADD', EXPIRY, unpack(group.adds))
  end
  changes[group.before] = (changes[group.before] or 0) - group.count
  if group.after ~= '' then changes[group.after] = (changes[group.after] or 0) + group.count end
end
for _, group in ipairs(groups) do
  local kind, name = string.byte(group.from), string.sub(group.from, 2)
  if kind == 108 then
    if group.to ~= group.from then call('ZREM', LANE .. name, unpack(group.ids)) end
    refresh_lane(name)
  elseif kind == 114 then
    end_leases(name, group.ids, group.all)
  elseif kind == 120 and group.to ~= 'x' then
    call('ZREM', EXPIRY, unpack(group.ids))
  end
end
if #deleted > 0 then call('UNLINK', unpack(deleted)) end
count(changes)
if news ~= ARGV[3] then tell(ARGV[2], news) end
return reply
