-- Leases what is due, claim by claim: lanes by priority, then in the order of their last visit, each in order of due time.
-- Bodies are not touched: the coordinator reads them afterwards.
--
-- ARGV: now, restrictions n, n × (queue, name, most tasks, most of those that were tried before ('' : no bound)), which hold
--   for all claims together: of a dependency where there is no queue, of a queue where there is no name, else of the queue's
--   group; claims n, then for each claim
--   its name `agent|boot`, request ('' : none), whether it goes on with what it was given before (0 | 1), most leases,
--   nonce (8 bytes),
--   queues n, n × (queue, length of its leases in ms), avoided n, n × dependency
-- Returns: the time in µs, then for each claim
--   { 'new', ms when the next is due ('' : none is, or it was filled), { lane, epoch, ms of its end, id, id, … }, … }
--   { 'held back', the same, { place of a restriction because of which something due was passed over, … }, the same }
--   { 'again', { epoch, nonce, leased at, ms of its end, whether it was extended, id, id, … }, … } where the request was answered before
-- O(n log m + lanes): n the leases, m the tasks of a lane.
local LANES_MAX, LOOKED_MAX, PUT_BACK_MAX, PAGE, REPLAY_MS = 1024, 5000, 10000, 256, 600000
local STEP_US, GIVEN_UP_US = 1000000, 250000
local changes = {}
-- What may still be leased: by dependency, by queue, and by queue and group.
local is_restricted, of_dependencies, of_queues, of_groups = false, {}, {}, {}
local stamp = math.max(tonumber(call('GET', EPOCH) or 0), now_us - 1)
local first_stamp = stamp

-- The next number in order: epochs of leases, and turns of lanes.
local function next_stamp()
  stamp = stamp + 1
  return stamp
end

-- What the same request was given before: { at, leases = { { epoch, id, … }, … } }; nil: nothing.
local function replay(key)
  local kept = call('GET', key)
  if not kept then return nil end
  local given = cmsgpack.unpack(kept)
  if given.at + REPLAY_MS < now_ms then return nil end
  return given
end

-- Those of the leases given before that still hold, in the order in which they were given; without what another run took
-- over.
local function still_held(given)
  local reply = { 'again' }
  for _, lease in ipairs(given.leases) do
    local epoch, ids = lease[1], { unpack(lease, 2) }
    local nonce, at, ends = struct.unpack('>c8I6I6', grant_of(epoch))
    local scores, extended = call('ZMSCORE', LEASES, unpack(ids)), call('HMGET', EXTENDED, unpack(ids))
    local last
    for i, id in ipairs(ids) do
      if scores[i] == epoch and taker_of(extended[i]) == '' then
        local until_ms = extended[i] and struct.unpack('>I6', extended[i]) or ends
        local kind = { epoch, nonce, string.format('%d', at), string.format('%d', until_ms), extended[i] and '1' or '0' }
        if not last or last[4] ~= kind[4] or last[5] ~= kind[5] then
          last = kind
          reply[#reply + 1] = last
        end
        last[#last + 1] = id
      end
    end
  end
  return reply
end

-- Whether a lane is one of tasks that were tried before: `dependency|group|r`.
local function is_of_retries(rest)
  return string.find(rest, '|.*|r$') ~= nil
end

-- What restricts a lane, in the order in which it is told; nil: nothing does.
local function limits_of(queue, rest)
  local dependency, group = string.match(rest, '^([^|]*)|([^|]*)')
  local found
  local function add(limit)
    if limit then
      found = found or {}
      found[#found + 1] = limit
    end
  end
  add(of_queues[queue])
  if of_groups[queue] then add(of_groups[queue][group]) end
  add(of_dependencies[dependency])
  return found
end

-- How many tasks of a lane a restriction still lets through.
local function let_through(limit, rest)
  return is_of_retries(rest) and math.min(limit.any, limit.retries) or limit.any
end

-- Whether a restriction lets nothing of a lane through that is due: the first that does not is told.
local function holds_back(claim, limits, rest)
  for _, limit in ipairs(limits or {}) do
    if let_through(limit, rest) <= 0 then
      claim.held_back = claim.held_back or {}
      claim.held_back[limit.place] = true
      return true
    end
  end
  return false
end

-- Up to `wanted` lanes of a priority that are due and eligible, longest since their turn first.
local function due_lanes(claim, rank, wanted)
  local found = {}
  local limit = string.format('%d', due_now)
  wanted = math.min(wanted, LANES_MAX)
  local at_once = math.max(wanted, PAGE)
  for _, queue in ipairs(claim.queues) do
    local index, offset, mine = rank .. '|' .. queue.name, 0, 0
    local whole = of_queues[queue.name]
    repeat
      local page = call('ZRANGEBYSCORE', LANES .. index, '-inf', limit, 'WITHSCORES', 'LIMIT', offset, at_once)
      for i = 1, #page, 2 do
        if mine < wanted then
          local limits = is_restricted and limits_of(queue.name, page[i]) or nil
          local eligible = not claim.avoid[string.match(page[i], '^[^|]*')]
          if eligible and holds_back(claim, limits, page[i]) then
            -- No other lane of the queue has to be looked at, of which there may be very many.
            if whole and whole.any <= 0 then mine = wanted end
          elseif eligible then
            found[#found + 1] = { index = index, rest = page[i], score = tonumber(page[i + 1]), queue = queue, limits = limits }
            mine = mine + 1
          end
        end
      end
      offset = offset + at_once
    until #page < at_once * 2 or mine >= wanted
  end
  if #claim.queues > 1 then
    table.sort(found, function(a, b) return a.score < b.score end)
  end
  return found
end

-- The lane was visited: its turn comes after everybody else's, or when its next task is due.
local function turn(lane, key)
  local head = call('ZRANGE', key, 0, 0, 'WITHSCORES')
  if #head == 0 then
    call('ZREM', LANES .. lane.index, lane.rest)
    call('ZREM', BOUNDS, lane.index .. '|' .. lane.rest)
    call('HDEL', SWEEPS, lane.index .. '|' .. lane.rest)
  elseif tonumber(head[2]) > due_now then
    call('ZADD', LANES .. lane.index, head[2], lane.rest)
  else
    call('ZADD', LANES .. lane.index, string.format('%d', math.min(next_stamp(), due_now)), lane.rest)
  end
end

-- The grant of a claim's leases that end then.
local function grant_until(claim, ends)
  local grant = claim.by_end[ends]
  if not grant then
    grant = { epoch = string.format('%d', next_stamp()), ends = string.format('%d', ends) }
    grant.kept = struct.pack('>c8I6I6', claim.nonce, now_ms, ends) .. claim.name
    claim.by_end[ends] = grant
    claim.grants[#claim.grants + 1] = grant
  end
  return grant
end

-- The clock went back: lanes that were visited before, up to then, stand where they would not come up for as long. This is
-- done once, for as many of a priority as one call can do.
local function put_back(queue, visited)
  local after, most = string.format('(%d', due_now), string.format('%d', visited)
  for rank = 0, 2 do
    local index = rank .. '|' .. queue
    for _, rest in ipairs(call('ZRANGEBYSCORE', LANES .. index, after, most, 'LIMIT', 0, PUT_BACK_MAX)) do
      turn({ index = index, rest = rest }, LANE .. index .. '|' .. rest)
    end
  end
end

-- Leases up to `wanted` tasks of a lane: moves them from it to the leases. Returns how many. Tables are filled by a counter
-- and numbers given to Redis as text: that is most of what a task costs here.
local function visit(claim, lane, wanted)
  local key = LANE .. lane.index .. '|' .. lane.rest
  local ids = call('ZRANGEBYSCORE', key, '-inf', string.format('%d', due_now), 'LIMIT', 0, wanted)
  local leased = #ids
  if leased > 0 then
    local grant = grant_until(claim, now_ms + lane.queue.lease_ms)
    local epoch, adds, given = grant.epoch, {}, { lane.index .. '|' .. lane.rest, grant.epoch, grant.ends }
    for i, id in ipairs(ids) do
      adds[i * 2 - 1], adds[i * 2] = epoch, id
      given[i + 3] = id
    end
    claim.count = claim.count + leased
    call('ZADD', LEASES, unpack(adds))
    -- They were read from the lowest score on: they are its first.
    call('ZREMRANGEBYRANK', key, '0', string.format('%d', leased - 1))
    claim.lanes[#claim.lanes + 1] = given
    local queue = lane.queue.name
    changes[queue .. '|0'] = (changes[queue .. '|0'] or 0) - leased
    changes[queue .. '|1'] = (changes[queue .. '|1'] or 0) + leased
    for _, limit in ipairs(lane.limits or {}) do
      limit.any = limit.any - leased
      if is_of_retries(lane.rest) then limit.retries = limit.retries - leased end
    end
  end
  turn(lane, key)
  return leased
end

-- When the next task of the claim's eligible lanes is due. That of a lane that is held back counts, since somebody has to notice
-- it then; what is due by now does not: no due time lets it through. Where very many lanes are to be avoided it is not looked for to the
-- end: then it is to be asked again soon.
local function next_due(claim)
  local first
  local after = string.format('(%d', due_now)
  for rank = 0, 2 do
    for _, queue in ipairs(claim.queues) do
      local index, offset, found, ended = rank .. '|' .. queue.name, 0, nil, false
      repeat
        local at_once = offset == 0 and 16 or PAGE
        local page = call('ZRANGEBYSCORE', LANES .. index, after, '+inf', 'WITHSCORES', 'LIMIT', offset, at_once)
        for i = 1, #page, 2 do
          if not found and not claim.avoid[string.match(page[i], '^[^|]*')] then found = tonumber(page[i + 1]) end
        end
        offset = offset + at_once
        ended = #page < at_once * 2
        if not found and not ended and offset >= LOOKED_MAX then found = now_us + GIVEN_UP_US end
      until found or ended
      if found and (not first or found < first) then first = found end
    end
  end
  return first and string.format('%d', math.floor(first / 1000)) or ''
end

-- Fills a claim: lanes of one priority share what is wanted; what some cannot fill, the next round gives to the others.
local function fill(claim)
  for rank = 0, 2 do
    while claim.count < claim.most do
      local before, left = claim.count, claim.most - claim.count
      local lanes = due_lanes(claim, rank, left)
      if #lanes == 0 then break end
      local share = math.ceil(left / #lanes)
      for _, lane in ipairs(lanes) do
        left = claim.most - claim.count
        if left == 0 then break end
        local most = math.min(share, left)
        -- A lane before it may have used up what there was for both.
        for _, limit in ipairs(lane.limits or {}) do most = math.min(most, let_through(limit, lane.rest)) end
        if most > 0 then visit(claim, lane, most) end
      end
      if claim.count == before then break end
    end
  end
end

local at = 2
local function take()
  at = at + 1
  return ARGV[at - 1]
end

for place = 0, tonumber(take()) - 1 do
  local queue, name, any, retries = take(), take(), take(), take()
  local limit = { place = place, any = tonumber(any) or math.huge, retries = tonumber(retries) or math.huge }
  is_restricted = true
  if queue == '' then
    of_dependencies[name] = limit
  elseif name == '' then
    of_queues[queue] = limit
  else
    of_groups[queue] = of_groups[queue] or {}
    of_groups[queue][name] = limit
  end
end

local reply, visits = { string.format('%d', now_us) }, {}
for _ = 1, tonumber(take()) do
  local claim = { name = take(), request = take(), goes_on = take() == '1', most = tonumber(take()), nonce = take(),
    count = 0, grants = {}, by_end = {}, lanes = {}, queues = {}, avoid = {} }
  for _ = 1, tonumber(take()) do
    local queue = { name = take(), lease_ms = tonumber(take()) }
    if call('SISMEMBER', PAUSED, queue.name) == 0 then claim.queues[#claim.queues + 1] = queue end
    local visited = visits[queue.name] or tonumber(call('HGET', VISITS, queue.name) or 0)
    if visited > due_now + STEP_US then put_back(queue.name, visited) end
    if math.abs(due_now - visited) > STEP_US / 2 then visits[queue.name] = due_now end
  end
  for _ = 1, tonumber(take()) do claim.avoid[take()] = true end
  local key = REQUEST .. claim.name .. '|' .. claim.request
  local again = claim.request ~= '' and replay(key) or nil
  if again and not claim.goes_on then
    reply[#reply + 1] = still_held(again)
  else
    fill(claim)
    local given = again or { leases = {} }
    for _, grant in ipairs(claim.grants) do
      call('ZADD', ENDS, grant.ends, grant.epoch)
      call('HSET', GRANTS, grant.epoch, grant.kept)
    end
    -- In the order in which they are given: it is that of every answer.
    for _, lane in ipairs(claim.lanes) do given.leases[#given.leases + 1] = { lane[2], unpack(lane, 4) } end
    if claim.count > 0 and claim.request ~= '' then
      given.at = now_ms
      call('SET', key, cmsgpack.pack(given), 'PX', REPLAY_MS)
    end
    local due = claim.count < claim.most and next_due(claim) or ''
    if claim.held_back then
      local places = {}
      for place in pairs(claim.held_back) do places[#places + 1] = place end
      reply[#reply + 1] = { 'held back', due, places, unpack(claim.lanes) }
    else
      reply[#reply + 1] = { 'new', due, unpack(claim.lanes) }
    end
  end
end
for queue, visited in pairs(visits) do call('HSET', VISITS, queue, string.format('%d', visited)) end
if stamp > first_stamp then call('SET', EPOCH, string.format('%d', stamp)) end
count(changes)
return reply
