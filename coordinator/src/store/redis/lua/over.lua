-- What time has ended: leases, and waiting tasks whose deadline has passed. It decides nothing; it only puts right the
-- lower bounds by which it looks.
--
-- ARGV: now, most leases, most late tasks, spared ms (leases given before it are left alone)
-- Returns: the time in µs; ms when to look again for leases, and for deadlines ('' : never); leases n; n × (id, head, lease); then tasks: id, head.
-- O(n log m + lanes whose bound has passed × PAGE).
local PAGE, EXACT, LANES_MAX, AGAIN_MS, LATER_MS = 1000, 64, 64, 100, 1000
local most, most_late, spared_ms = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local again = {}
local function look_again(what, ms)
  if not again[what] or ms < again[what] then again[what] = ms end
end
local function said(what)
  return again[what] and string.format('%d', again[what]) or ''
end

local leases = {}
local passed = call('ZRANGEBYSCORE', ENDS, '-inf', now_ms, 'LIMIT', 0, PAGE)
for _, epoch in ipairs(passed) do
  local ids = call('ZRANGEBYSCORE', LEASES, epoch, epoch)
  local held, next_end, left, is_over = leases_of(ids), nil, false, false
  for i, id in ipairs(ids) do
    local leased_at, ends = struct.unpack('>I6I6', held[i], 17)
    local head = ends <= now_ms and head_of(id)
    if ends > now_ms then
      if not next_end or ends < next_end then next_end = ends end
    elseif not head then
      end_leases(epoch, { id })
    elseif string.byte(head) ~= VERSION then
      call('HSET', EXTENDED, id, struct.pack('>I6', now_ms + SET_ASIDE_MS))
    elseif leased_at < spared_ms or #leases / 3 >= most then
      left = true
    else
      is_over = true
      leases[#leases + 1] = id
      leases[#leases + 1] = head
      leases[#leases + 1] = held[i]
    end
  end
  if #ids == 0 then
    call('ZREM', ENDS, epoch)
    call('HDEL', GRANTS, epoch)
  elseif left then
    look_again('leases', now_ms)
  elseif next_end and not is_over then
    call('ZADD', ENDS, next_end, epoch)
  end
  if next_end then look_again('leases', next_end) end
end
if #passed == PAGE then look_again('leases', now_ms) end
local next_grant = call('ZRANGEBYSCORE', ENDS, '(' .. now_ms, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
if #next_grant > 0 then look_again('leases', tonumber(next_grant[2])) end

local late = {}
local bounds = call('ZRANGEBYSCORE', BOUNDS, '-inf', '(' .. now_ms, 'LIMIT', 0, LANES_MAX)
for _, lane in ipairs(bounds) do
  local size = call('ZCARD', LANE .. lane)
  local whole = size <= EXACT
  local from = whole and 0 or tonumber(call('HGET', SWEEPS, lane) or 0)
  -- A task is due by its deadline, or at most a release later: what is late and not due yet is seen when it is.
  local ids = whole and call('ZRANGE', LANE .. lane, 0, -1)
    or call('ZRANGEBYSCORE', LANE .. lane, '-inf', due_now, 'LIMIT', from, PAGE)
  local first
  for _, id in ipairs(ids) do
    local head = call('GETRANGE', TASK .. id, 0, HEADER - 1)
    if #head < HEADER then
      call('ZREM', LANE .. lane, id)
    else
      local deadline = struct.unpack('>I6', head, 29)
      if string.byte(head) ~= VERSION then deadline = now_ms + SET_ASIDE_MS end
      if deadline < now_ms and #late / 2 < most_late then
        late[#late + 1] = id
        late[#late + 1] = head_of(id)
      else
        if deadline < now_ms then look_again('deadlines', now_ms) end
        if not first or deadline < first then first = deadline end
      end
    end
  end
  if size == 0 then
    call('ZREM', BOUNDS, lane)
  elseif whole then
    if first then call('ZADD', BOUNDS, first, lane) end
  elseif #ids == PAGE then
    call('HSET', SWEEPS, lane, from + PAGE - #late / 2)
    look_again('deadlines', now_ms + AGAIN_MS)
  else
    call('HDEL', SWEEPS, lane)
    call('ZADD', BOUNDS, now_ms + LATER_MS, lane)
  end
end
local next_bound = call('ZRANGEBYSCORE', BOUNDS, now_ms, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
if #next_bound > 0 then look_again('deadlines', tonumber(next_bound[2]) + 1) end
if #bounds == LANES_MAX then look_again('deadlines', now_ms) end

local reply = { string.format('%d', now_us), said('leases'), said('deadlines'), #leases / 3 }
for _, part in ipairs(leases) do reply[#reply + 1] = part end
for _, part in ipairs(late) do reply[#reply + 1] = part end
return reply
