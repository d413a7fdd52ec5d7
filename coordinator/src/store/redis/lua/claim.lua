-- Leases what is due, claim by claim: lanes by priority, then in the order of their last visit, each in order of due time.
--
-- ARGV: now, claims n, then for each claim
--   run, its name `agent|boot`, request ('' : none), more (1: not a repetition, it was given some a moment ago), most leases, payload bytes that fit, nonce (8 bytes),
--   queues n, n × (queue, length of its leases in ms), avoided n, n × dependency
-- Returns: the time in µs, then for each claim
--   { 'new' | 'again', ms when the next is due ('' : none is, or it was filled),
--     { id, value as it was before the lease | as it is, … }, { id, head of a task past its deadline, … } }
-- A lease by its place k (from 0) has the nonce whose last four bytes are raised by k.
-- O(n log m + lanes): n the leases, m the tasks of a lane.
local PAGE, LATE_MAX, LANES_MAX, REPLAY_MS, SET_ASIDE_US = 100, 1000, 1024, 600000, 60000000
local changes, seen_late = {}, {}
local stamp = math.max(tonumber(call('GET', ORDINAL) or 0), now_us - 1)
local first_stamp = stamp

-- What the same request was given before, as far as it holds; nil: it was given nothing.
local function replay(key)
  local kept = call('GET', key)
  if not kept then return nil end
  local given = cmsgpack.unpack(kept)
  if given.at + REPLAY_MS < now_ms then return nil end
  local leases = {}
  for i = 1, #given.leases, 2 do
    local value = call('GET', TASK .. given.leases[i])
    if value and string.byte(value, 2) == 1 and string.sub(value, 3, 18) == given.leases[i + 1] then
      leases[#leases + 1] = given.leases[i]
      leases[#leases + 1] = value
    end
  end
  return leases
end

-- What this very claim was given a moment ago: a repetition must find that as well.
local function before(key)
  local kept = call('GET', key)
  return kept and cmsgpack.unpack(kept).leases or {}
end

-- Up to `wanted` lanes of a priority that are due and eligible, longest since their turn first.
local function due_lanes(claim, rank, wanted)
  local found = {}
  local limit = math.max(due_now, stamp)
  wanted = math.min(wanted, LANES_MAX)
  for _, queue in ipairs(claim.queues) do
    local index, offset, mine = rank .. '|' .. queue.name, 0, 0
    repeat
      local page = call('ZRANGEBYSCORE', LANES .. index, '-inf', limit, 'WITHSCORES', 'LIMIT', offset, wanted)
      for i = 1, #page, 2 do
        if not claim.avoid[string.match(page[i], '^[^|]*')] then
          found[#found + 1] = { index = index, rest = page[i], score = tonumber(page[i + 1]), queue = queue }
          mine = mine + 1
        end
      end
      offset = offset + #page / 2
    until #page == 0 or mine >= wanted
  end
  if #claim.queues > 1 then
    table.sort(found, function(a, b) return a.score < b.score end)
  end
  return found
end

-- The lane was visited: its turn comes after everybody else's, or when its next task is due. Late tasks stay at its head
-- until the coordinator has escalated them.
local function turn(lane, key, late)
  local head = call('ZRANGE', key, late, late, 'WITHSCORES')
  if #head == 0 then
    call('ZREM', LANES .. lane.index, lane.rest)
    if late == 0 then
      call('ZREM', BOUNDS, lane.index .. '|' .. lane.rest)
      call('HDEL', SWEEPS, lane.index .. '|' .. lane.rest)
    end
  elseif tonumber(head[2]) > due_now then
    call('ZADD', LANES .. lane.index, head[2], lane.rest)
  else
    stamp = stamp + 1
    call('ZADD', LANES .. lane.index, stamp, lane.rest)
  end
end

-- Leases one task if it can be; says what became of it.
local function lease(claim, id, value, ends)
  if not value or string.byte(value, 2) ~= 0 then return 'gone' end
  if string.byte(value) ~= VERSION then return 'unreadable' end
  local epoch, _, _, _, _, runs, _, _, deadline = struct.unpack('>i8c8BI6I6I4c8I6I6', value, 3)
  if deadline < now_ms then return 'late' end
  local slot = struct.unpack('>I4', value, 60)
  if slot > claim.room and #claim.leases > 0 then return 'full' end
  claim.room = math.max(0, claim.room - slot)
  epoch = math.max(epoch + 1, now_us)
  local nonce = claim.nonce .. struct.pack('>I4', (claim.counter + #claim.leases / 2) % 4294967296)
  call('SETRANGE', TASK .. id, 1,
    struct.pack('>Bi8c8BI6I6I4c8', 1, epoch, nonce, 0, ends, now_ms, runs + 1, claim.run))
  claim.leases[#claim.leases + 1] = id
  claim.leases[#claim.leases + 1] = value
  if claim.request ~= '' then
    claim.given[#claim.given + 1] = id
    claim.given[#claim.given + 1] = struct.pack('>i8', epoch) .. nonce
  end
  return 'leased'
end

-- Leases up to `wanted` tasks of a lane.
local function visit(claim, lane, wanted)
  local key = LANE .. lane.index .. '|' .. lane.rest
  local ends = now_ms + lane.queue.lease_ms
  local leaves, adds, late, full, aside = {}, {}, 0, false, {}
  local leased = 0
  while leased < wanted and not full and #claim.late / 2 < LATE_MAX do
    local ids = call('ZRANGEBYSCORE', key, '-inf', due_now, 'LIMIT', late + #leaves + #aside / 2,
      math.min(wanted - leased, PAGE))
    if #ids == 0 then break end
    local keys = {}
    for i, id in ipairs(ids) do keys[i] = TASK .. id end
    for i, value in ipairs(call('MGET', unpack(keys))) do
      local id = ids[i]
      local became = lease(claim, id, value, ends)
      if became == 'leased' then
        leased = leased + 1
        adds[#adds + 1] = ends
        adds[#adds + 1] = id
        leaves[#leaves + 1] = id
      elseif became == 'gone' then
        leaves[#leaves + 1] = id
      elseif became == 'unreadable' then
        aside[#aside + 1] = due_now + SET_ASIDE_US
        aside[#aside + 1] = id
      elseif became == 'late' then
        late = late + 1
        if not seen_late[id] then
          seen_late[id] = true
          claim.late[#claim.late + 1] = id
          claim.late[#claim.late + 1] = head_of(id)
        end
      else
        claim.room, full = 0, true
        break
      end
    end
  end
  if #adds > 0 then call('ZADD', LEASES .. claim.run, unpack(adds)) end
  if #leaves > 0 then call('ZREM', key, unpack(leaves)) end
  if #aside > 0 then call('ZADD', key, unpack(aside)) end
  turn(lane, key, late)
  if leased > 0 then
    if not claim.ends or ends < claim.ends then claim.ends = ends end
    local queue = lane.queue.name
    changes[queue .. '|0'] = (changes[queue .. '|0'] or 0) - leased
    changes[queue .. '|1'] = (changes[queue .. '|1'] or 0) + leased
  end
end

-- When the next task of the claim's eligible lanes is due.
local function next_due(claim)
  local first
  for rank = 0, 2 do
    for _, queue in ipairs(claim.queues) do
      local index, offset, found = rank .. '|' .. queue.name, 0, nil
      repeat
        local page = call('ZRANGEBYSCORE', LANES .. index, '(' .. due_now, '+inf', 'WITHSCORES', 'LIMIT', offset, 16)
        for i = 1, #page, 2 do
          if not found and not claim.avoid[string.match(page[i], '^[^|]*')] then found = tonumber(page[i + 1]) end
        end
        offset = offset + 16
      until found or #page == 0
      if found and (not first or found < first) then first = found end
    end
  end
  return first and string.format('%.0f', math.floor(first / 1000)) or ''
end

-- Fills a claim: lanes of one priority share what is wanted; what some cannot fill, the next round gives to the others.
local function fill(claim)
  for rank = 0, 2 do
    while #claim.leases / 2 < claim.most do
      local before = #claim.leases + #claim.late
      local left = claim.most - #claim.leases / 2
      local lanes = due_lanes(claim, rank, left)
      if #lanes == 0 then break end
      local share = math.ceil(left / #lanes)
      for _, lane in ipairs(lanes) do
        left = claim.most - #claim.leases / 2
        if left == 0 then break end
        visit(claim, lane, math.min(share, left))
        if claim.room == 0 or #claim.late / 2 >= LATE_MAX then return true end
      end
      if #claim.leases + #claim.late == before then break end
    end
  end
  return false
end

local at = 3
local function take()
  at = at + 1
  return ARGV[at - 1]
end

local reply = { string.format('%.0f', now_us) }
for _ = 1, tonumber(ARGV[2]) do
  local claim = { run = take(), name = take(), request = take(), more = take() == '1', most = tonumber(take()),
    room = tonumber(take()), leases = {}, late = {}, given = {}, queues = {}, avoid = {} }
  claim.nonce, claim.counter = struct.unpack('>c4I4', take())
  for _ = 1, tonumber(take()) do
    local queue = { name = take(), lease_ms = tonumber(take()) }
    if call('SISMEMBER', PAUSED, queue.name) == 0 then claim.queues[#claim.queues + 1] = queue end
  end
  for _ = 1, tonumber(take()) do claim.avoid[take()] = true end
  local key = REQUEST .. claim.name .. '|' .. claim.request
  local again = claim.request ~= '' and not claim.more and replay(key)
  if claim.request ~= '' and claim.more then claim.given = before(key) end
  if again then
    reply[#reply + 1] = { 'again', '', again, {} }
  else
    local stopped = fill(claim)
    if claim.ends then
      call('ZADD', RUNS, 'LT', claim.ends, claim.run)
      call('HSET', NAMES, claim.run, claim.name)
      if claim.request ~= '' then
        call('SET', key, cmsgpack.pack({ at = now_ms, leases = claim.given }), 'PX', REPLAY_MS)
      end
    end
    local due = ''
    if #claim.leases / 2 < claim.most then
      due = stopped and string.format('%.0f', now_ms) or next_due(claim)
    end
    reply[#reply + 1] = { 'new', due, claim.leases, claim.late }
  end
end
if stamp > first_stamp then call('SET', ORDINAL, string.format('%.0f', stamp)) end
count(changes)
return reply
