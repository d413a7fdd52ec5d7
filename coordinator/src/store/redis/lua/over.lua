-- What time has ended: leases, and waiting tasks whose deadline has passed. It decides nothing; it only puts right the
-- lower bounds by which it looks.
--
-- ARGV: now, most leases, most late tasks, spared ms (leases given before it are left alone)
-- Returns: the time in µs; ms when to look again for leases, and for deadlines ('' : never); leases n; n × (id, head, lease);
--   then tasks: id, head, lane.
-- O(grants and lanes whose bound has passed + HEADS_MAX): of each kind at most so many tasks are looked at in one call.
local HEADS_MAX, GRANTS_MAX, PAGE, EXACT, LANES_MAX, AGAIN_MS, LATER_MS = 2000, 500, 1000, 64, 64, 50, 1000
local most, most_late, spared_ms = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local again = {}
local function look_again(what, ms)
  if not again[what] or ms < again[what] then again[what] = ms end
end
local function said(what)
  return again[what] and string.format('%d', again[what]) or ''
end

local leases, looked = {}, 0
local passed = call('ZRANGEBYSCORE', ENDS, '-inf', now_ms, 'LIMIT', 0, GRANTS_MAX)
for _, epoch in ipairs(passed) do
  if looked >= HEADS_MAX then
    look_again('leases', now_ms)
    break
  end
  local ids = call('ZRANGEBYSCORE', LEASES, epoch, epoch)
  local held, next_end, stays = leases_of(ids), nil, #ids == 0
  looked = looked + #ids
  for i, id in ipairs(ids) do
    local leased_at, ends = struct.unpack('>I6I6', held[i], 17)
    local head = ends <= now_ms and head_of(id)
    if ends > now_ms then
      if not next_end or ends < next_end then next_end = ends end
    elseif not head then
      end_leases(epoch, { id })
    else
      -- Its grant is looked at again.
      stays = true
      if leased_at < spared_ms or #leases / 3 >= most then
        look_again('leases', now_ms)
      else
        leases[#leases + 1] = id
        leases[#leases + 1] = head
        leases[#leases + 1] = held[i]
      end
    end
  end
  if #ids == 0 then
    call('ZREM', ENDS, epoch)
    call('HDEL', GRANTS, epoch)
  elseif next_end and not stays then
    call('ZADD', ENDS, next_end, epoch)
  end
  if next_end then look_again('leases', next_end) end
end
if #passed == GRANTS_MAX then look_again('leases', now_ms) end
local next_grant = call('ZRANGEBYSCORE', ENDS, '(' .. now_ms, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
if #next_grant > 0 then look_again('leases', tonumber(next_grant[2])) end

local late = {}

-- Looks at tasks of a lane. Returns how many of them stay where they are, the earliest deadline of these, and whether it
-- came to the end of them; if it did not, they are to be looked at again at once.
local function look_at(lane, ids_and_scores)
  local stay, first = 0, nil
  for i = 1, #ids_and_scores, 2 do
    local id, due_ms = ids_and_scores[i], math.floor(tonumber(ids_and_scores[i + 1]) / 1000)
    local head = call('GETRANGE', TASK .. id, 0, HEADER - 1)
    if #head == 0 then
      call('ZREM', LANE .. lane, id)
    else
      local deadline = now_ms + SET_ASIDE_MS
      if readable(head) then
        local due
        due, deadline = struct.unpack('>I6I6', head, 23)
        -- It was put off, since it cannot be read: until then it is not looked at again.
        if due_ms > due and due_ms > now_ms then deadline = math.max(deadline, due_ms) end
      end
      if deadline < now_ms then
        if #late / 3 >= most_late then
          look_again('deadlines', now_ms)
          return stay, first, false
        end
        late[#late + 1] = id
        late[#late + 1] = head_of(id)
        late[#late + 1] = lane
      else
        stay = stay + 1
        if not first or deadline < first then first = deadline end
      end
    end
  end
  return stay, first, true
end

-- The bound of a small lane is exact, as far as all that was found late is gone: until then it stays as it is, so that
-- whoever looks next finds what the coordinator that was told of it did not come to escalate.
local function look_at_all(lane)
  local before = #late
  local _, first, ended = look_at(lane, call('ZRANGE', LANE .. lane, 0, -1, 'WITHSCORES'))
  if first and ended and #late == before then call('ZADD', BOUNDS, first, lane) end
  if first then look_again('deadlines', first + 1) end
end

-- A large lane is looked through a stretch at a time, again and again while its bound has passed, with LATER_MS in between.
-- A task is due by its deadline, or at most a release later: what is late and not due yet is seen when it is. A stretch
-- begins where the last one ended, by rank; tasks that left the lane before there shift the others, so some are passed over,
-- as is what is added there meanwhile. The bound stays passed for as long as a round lasts, so what is added with an earlier
-- deadline leaves no trace in it either. All of these are found by the next round, which begins LATER_MS after this one's end.
local function look_at_stretch(lane, most_heads)
  local from, wanted = tonumber(call('HGET', SWEEPS, lane) or 0), math.min(PAGE, most_heads)
  local page = call('ZRANGEBYSCORE', LANE .. lane, '-inf', due_now, 'WITHSCORES', 'LIMIT', from, wanted)
  local stay, _, ended = look_at(lane, page)
  if ended and #page / 2 < wanted then
    call('HDEL', SWEEPS, lane)
    call('ZADD', BOUNDS, now_ms + LATER_MS, lane)
  else
    -- What was late or gone is not there any more when the next stretch begins. Other lanes come before it.
    call('HSET', SWEEPS, lane, from + stay)
    call('ZADD', BOUNDS, now_ms - 1, lane)
    look_again('deadlines', now_ms + AGAIN_MS)
  end
  return #page / 2
end

local heads = HEADS_MAX
local bounds = call('ZRANGEBYSCORE', BOUNDS, '-inf', '(' .. now_ms, 'LIMIT', 0, LANES_MAX)
for _, lane in ipairs(bounds) do
  local size = call('ZCARD', LANE .. lane)
  if size == 0 then
    call('ZREM', BOUNDS, lane)
  elseif heads < EXACT then
    look_again('deadlines', now_ms + AGAIN_MS)
    break
  elseif size <= EXACT then
    look_at_all(lane)
    heads = heads - size
  else
    heads = heads - look_at_stretch(lane, heads)
  end
end
local next_bound = call('ZRANGEBYSCORE', BOUNDS, now_ms, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
if #next_bound > 0 then look_again('deadlines', tonumber(next_bound[2]) + 1) end
if #bounds == LANES_MAX then look_again('deadlines', now_ms + AGAIN_MS) end

local reply = { string.format('%d', now_us), said('leases'), said('deadlines'), #leases / 3 }
for _, part in ipairs(leases) do reply[#reply + 1] = part end
for _, part in ipairs(late) do reply[#reply + 1] = part end
return reply
