-- Locks: the rules of `shared/src/lock`, in Redis. A model holds that both give the same answers.
--
-- KEYS[1]: what every key of the locks begins with
-- ARGV: now, channel, origin, most locks, most waiters, ms in which an offer is picked up, ms that a waiter counts as alive,
--   then verbs, one after the other:
--     'acquire', owner, ttl, delay, wait (ms), how many resources, and these: 'x' or 's' (alone, shared) and the name
--     'pick_up', place in line, owner | 'call_off', place in line, owner | 'renew', token, owner | 'release', token, owner
--     'take_back', token, owner, until when it was granted (µs) | 'break', token | 'advance'
--   An owner is 'a<epoch> <task>' or 'n <name>'.
-- Returns { { answer, … }, { place in line that was granted, … }, when something that is waited for is over (µs) or '',
--   how many locks were held until their time was over }. A lock is 'granted' where nobody was told of it before, else 'held'.
-- O(log n) a resource, and as many waiters more as are served.
local MARK, HOLDS, WAITS = shard .. 'mark', shard .. 'holds', shard .. 'waits'
local HOLD_ENDS, WAIT_ENDS, GRANTED = shard .. 'hold_ends', shard .. 'wait_ends', shard .. 'granted'
-- By resource: who has it, who has it alone, who waits, who waits to have it alone. By owner: tokens and places in line.
local HOLDERS, ALONE, LINE, LINE_ALONE, OWNED = shard .. 'h:', shard .. 'hx:', shard .. 'w:', shard .. 'wx:', shard .. 'o:'
local most_locks, most_waiters = tonumber(ARGV[4]), tonumber(ARGV[5])
local pick_up_us, alive_us = tonumber(ARGV[6]) * 1000, tonumber(ARGV[7]) * 1000
local offered, touched, expired = {}, {}, 0
-- How many of a line are read at a time: mostly the first of it ends the search.
local LINE_PART = 16

local function whole(number) return string.format('%d', number) end

local function after(ms) return now_us + ms * 1000 end

local function key_of(owner) return string.match(owner, ' (.*)$') end

local function is_before(owner, other)
  local epoch, later = string.match(owner, '^a(%-?%d+)'), string.match(other, '^a(%-?%d+)')
  return epoch and later and key_of(owner) == key_of(other) and tonumber(epoch) < tonumber(later)
end

-- Lines: phase (o: offered, h: held, l: lapsed), until, ttl, delay, since, place in line or nothing, owner, resources.
-- A wait has its own two times in the places of phase and until, and how long it wanted to wait in that of the place in line.
local function read(key, number)
  local text = call('HGET', key, number)
  if not text then return nil end
  local parts = {}
  for part in string.gmatch(text .. '\n', '(.-)\n') do parts[#parts + 1] = part end
  local record = { number = number, head = {}, owner = parts[7], wants = {} }
  for i = 1, 6 do record.head[i] = parts[i] end
  for i = 8, #parts do record.wants[i - 7] = parts[i] end
  return record
end

local function write(key, record)
  local text = table.concat(record.head, '\n') .. '\n' .. record.owner .. '\n' .. table.concat(record.wants, '\n')
  call('HSET', key, record.number, text)
end

local function hold_of(token)
  local hold = read(HOLDS, token)
  if hold then
    hold.phase, hold.until_us = hold.head[1], tonumber(hold.head[2])
    hold.ttl, hold.delay = tonumber(hold.head[3]), tonumber(hold.head[4])
  end
  return hold
end

local function keep_hold(hold)
  hold.head[1], hold.head[2], hold.head[3] = hold.phase, whole(hold.until_us), whole(hold.ttl)
  write(HOLDS, hold)
  call('ZADD', HOLD_ENDS, hold.head[2], hold.number)
end

local function wait_of(id) return read(WAITS, id) end

local function keep_wait(wait, deadline_us)
  local alive_until_us = now_us + alive_us
  wait.head[1], wait.head[2] = whole(deadline_us), whole(alive_until_us)
  write(WAITS, wait)
  call('ZADD', WAIT_ENDS, whole(math.min(deadline_us, alive_until_us)), wait.number)
end

local function each(wants, visit)
  for _, want in ipairs(wants) do
    local result = visit(string.sub(want, 2), string.sub(want, 1, 1) == 'x', want)
    if result ~= nil then return result end
  end
end

local function next_mark()
  local mark = whole(math.max(tonumber(call('GET', MARK) or 0) + 1, now_us))
  call('SET', MARK, mark)
  return mark
end

local function leave_holders(name, token)
  call('ZREM', HOLDERS .. name, token)
  call('ZREM', ALONE .. name, token)
  touched[name] = true
end

local function remove(hold)
  call('HDEL', HOLDS, hold.number)
  call('ZREM', HOLD_ENDS, hold.number)
  call('SREM', OWNED .. key_of(hold.owner), hold.number)
  if hold.head[6] ~= '' then call('HDEL', GRANTED, hold.head[6]) end
  each(hold.wants, function(name) leave_holders(name, hold.number) end)
end

local function lapse(hold, at_us)
  local kept = {}
  each(hold.wants, function(_, alone, want) if alone then kept[#kept + 1] = want end end)
  if #kept == 0 or hold.delay == 0 then return remove(hold) end
  each(hold.wants, function(name, alone) if not alone then leave_holders(name, hold.number) end end)
  hold.wants, hold.phase, hold.until_us = kept, 'l', at_us + hold.delay * 1000
  keep_hold(hold)
end

local function leave_line(wait)
  call('HDEL', WAITS, wait.number)
  call('ZREM', WAIT_ENDS, wait.number)
  call('SREM', OWNED .. key_of(wait.owner), wait.number)
  each(wait.wants, function(name)
    call('ZREM', LINE .. name, wait.number)
    call('ZREM', LINE_ALONE .. name, wait.number)
    touched[name] = true
  end)
end

local function granted(hold, word)
  return { word, hold.number, whole(hold.until_us), unpack(hold.wants) }
end

-- It is held, and ends no earlier than its time from now on; later than it did, in any case (`take_back`).
local function hold_on(hold)
  local word = hold.phase == 'o' and 'granted' or 'held'
  local least_us = hold.phase == 'h' and hold.until_us + 1 or now_us
  hold.phase, hold.until_us = 'h', math.max(least_us, after(hold.ttl))
  keep_hold(hold)
  return granted(hold, word)
end

local function grant(owner, ttl, delay, wants, id)
  local token = next_mark()
  local hold = { number = token, owner = owner, wants = wants, ttl = ttl, delay = delay }
  hold.head = { '', '', '', whole(delay), whole(now_us), id or '' }
  hold.phase, hold.until_us = id and 'o' or 'h', id and now_us + pick_up_us or after(ttl)
  each(wants, function(name, alone)
    call('ZADD', HOLDERS .. name, token, token)
    if alone then call('ZADD', ALONE .. name, token, token) end
  end)
  call('SADD', OWNED .. key_of(owner), token)
  if id then
    call('HSET', GRANTED, id, token)
    offered[#offered + 1] = id
  end
  keep_hold(hold)
  return granted(hold, 'granted')
end

-- What stands in the way of a wish, from a place in line (none: from its end).
local function blocker(wants, id)
  return each(wants, function(name, alone)
    local token = call('ZRANGE', (alone and HOLDERS or ALONE) .. name, 0, 0)[1]
    if token then
      local hold = hold_of(token)
      return { 'busy', name, hold.owner, whole(hold.until_us) }
    end
    local first = call('ZRANGE', (alone and LINE or LINE_ALONE) .. name, 0, 0)[1]
    if first and (not id or tonumber(first) < tonumber(id)) then return { 'busy', name, wait_of(first).owner, '' } end
  end)
end

local function by_bytes(one, other)
  for i = 1, math.min(#one, #other) do
    local here, there = string.byte(one, i), string.byte(other, i)
    if here ~= there then return here < there end
  end
  return #one < #other
end

-- Gives a resource to one that waits for it, if it is its turn; whether nobody after it can have it.
local function serve_one(name, id)
  local wait = wait_of(id)
  if not wait then return false end
  local alone = call('ZSCORE', LINE_ALONE .. name, id)
  if not blocker(wait.wants, id) then
    leave_line(wait)
    grant(wait.owner, tonumber(wait.head[3]), tonumber(wait.head[4]), wait.wants, id)
    -- Whoever leaves the line to hold lets nobody pass who could not before.
    touched = {}
  end
  -- Nobody passes one that has it alone, or wants to.
  return alone or call('ZCARD', ALONE .. name) > 0
end

local function serve_line(name)
  local from = '-inf'
  repeat
    local part = call('ZRANGE', LINE .. name, from, '+inf', 'BYSCORE', 'LIMIT', 0, LINE_PART)
    for _, id in ipairs(part) do
      if serve_one(name, id) then return end
    end
    from = #part > 0 and '(' .. part[#part]
  until #part < LINE_PART
end

-- Gives resources that something has left to those whose turn it is.
local function serve()
  local names = {}
  for name in pairs(touched) do names[#names + 1] = name end
  touched = {}
  table.sort(names, by_bytes)
  for _, name in ipairs(names) do serve_line(name) end
end

-- The first of a set of ends that is over, and when it was.
local function over(ends)
  local first = call('ZRANGE', ends, '-inf', whole(now_us), 'BYSCORE', 'LIMIT', 0, 1, 'WITHSCORES')
  return first[1], tonumber(first[2])
end

local function advance()
  local token, until_us = over(HOLD_ENDS)
  while token do
    local hold = hold_of(token)
    -- One whose record somebody has deleted does not stop the others.
    if not hold then call('ZREM', HOLD_ENDS, token)
    elseif hold.phase == 'h' then
      expired = expired + 1
      lapse(hold, until_us)
    else remove(hold) end
    token, until_us = over(HOLD_ENDS)
  end
  local id = over(WAIT_ENDS)
  while id do
    local wait = wait_of(id)
    if wait then leave_line(wait) else call('ZREM', WAIT_ENDS, id) end
    id = over(WAIT_ENDS)
  end
  serve()
end

local function set_of(wants)
  local names = {}
  each(wants, function(name, alone) names[name] = alone and 'x' or 's' end)
  return names
end

-- Holds and waits of all attempts of a task, or of whoever has that name: { hold or nil, wait or nil }, by number.
local function all_of(owner)
  local numbers = call('SMEMBERS', OWNED .. key_of(owner))
  table.sort(numbers, function(one, other) return tonumber(one) < tonumber(other) end)
  local all = {}
  for i, number in ipairs(numbers) do
    local hold = hold_of(number)
    all[i] = { hold = hold, wait = not hold and wait_of(number) or nil }
  end
  return all
end

local function covers(hold, wants)
  local has = set_of(hold.wants)
  return not each(wants, function(name, alone)
    if not has[name] or alone and has[name] ~= 'x' then return true end
  end)
end

local function touches(record, wants)
  local has = set_of(record.wants)
  return each(wants, function(name) if has[name] then return name end end)
end

local function acquire(owner, ttl, delay, wait_ms, wants)
  local all = all_of(owner)
  for _, one in ipairs(all) do
    if is_before(owner, (one.hold or one.wait).owner) then return { 'refused', 'superseded' } end
  end
  for _, one in ipairs(all) do
    if is_before((one.hold or one.wait).owner, owner) then
      if one.wait then leave_line(one.wait)
      elseif one.hold.phase == 'h' then lapse(one.hold, now_us)
      elseif one.hold.phase == 'o' then remove(one.hold) end
    end
  end
  serve()
  -- What was just served may be another wish of the same owner.
  local own = {}
  for _, one in ipairs(all_of(owner)) do
    if (one.hold or one.wait).owner == owner then own[#own + 1] = one end
  end
  for _, one in ipairs(own) do
    if one.hold and one.hold.phase ~= 'l' and covers(one.hold, wants) then
      one.hold.ttl = ttl
      return hold_on(one.hold)
    end
  end
  for _, one in ipairs(own) do
    if one.wait and table.concat(one.wait.wants, '\n') == table.concat(wants, '\n') then
      keep_wait(one.wait, after(wait_ms))
      return { 'waits', one.wait.number }
    end
  end
  local twice
  for _, want in ipairs(wants) do
    for _, one in ipairs(own) do
      local record = one.wait or one.hold.phase ~= 'l' and one.hold
      if not twice and record and touches(record, { want }) then twice = string.sub(want, 2) end
    end
  end
  if twice then return { 'refused', 'overlap', twice } end
  for _, one in ipairs(own) do
    if one.hold and one.hold.phase == 'l' and touches(one.hold, wants) then
      remove(one.hold)
      serve()
    end
  end
  local busy = blocker(wants)
  if not busy then
    if call('ZCARD', HOLD_ENDS) >= most_locks then return { 'refused', 'locks' } end
    return grant(owner, ttl, delay, wants)
  end
  if wait_ms == 0 then return busy end
  if call('ZCARD', WAIT_ENDS) >= most_waiters then return { 'refused', 'waiters' } end
  local id = next_mark()
  local wait = { number = id, owner = owner, wants = wants }
  wait.head = { '', '', whole(ttl), whole(delay), whole(now_us), whole(wait_ms) }
  each(wants, function(name, alone)
    call('ZADD', LINE .. name, id, id)
    if alone then call('ZADD', LINE_ALONE .. name, id, id) end
  end)
  call('SADD', OWNED .. key_of(owner), id)
  keep_wait(wait, after(wait_ms))
  return { 'waits', id }
end

-- What was granted to a place in line of that owner's.
local function granted_at(id, owner)
  local token = call('HGET', GRANTED, id)
  local hold = token and hold_of(token)
  return hold and hold.owner == owner and hold or nil
end

-- A place that is somebody else's is gone, and stays: after a failover its number may have been given twice.
local function pick_up(id, owner)
  local hold = granted_at(id, owner)
  if hold then return hold.phase == 'l' and { 'gone' } or hold_on(hold) end
  local wait = wait_of(id)
  if not wait or wait.owner ~= owner then return { 'gone' } end
  keep_wait(wait, tonumber(wait.head[1]))
  return { 'waits', id }
end

local function call_off(id, owner)
  local hold, wait = granted_at(id, owner), wait_of(id)
  if hold and hold.phase == 'o' then remove(hold)
  elseif wait and wait.owner == owner then leave_line(wait) end
  serve()
  return { 'done' }
end

-- The hold, or why not.
local function own(token, owner)
  local hold = hold_of(token)
  if not hold then return nil, { 'lost', 'unknown' } end
  if hold.owner ~= owner then return nil, { 'lost', 'not_yours' } end
  return hold
end

local function renew(token, owner)
  local hold, lost = own(token, owner)
  if not hold then return lost end
  if hold.phase == 'l' then return { 'lost', 'expired' } end
  return hold_on(hold)
end

local function release(token, owner)
  local hold, lost = own(token, owner)
  if not hold then return lost end
  remove(hold)
  serve()
  return hold.phase == 'l' and { 'lost', 'expired' } or { 'done' }
end

-- Unless its owner asked for it again or renewed it since, which made it last longer.
local function take_back(token, owner, until_us)
  local hold = own(token, owner)
  if hold and hold.phase == 'h' and hold.until_us == until_us then
    remove(hold)
    serve()
  end
  return { 'done' }
end

local function break_hold(token)
  local hold = hold_of(token)
  if not hold or hold.phase == 'l' then return { 'nothing' } end
  local was = call('HGET', HOLDS, token)
  lapse(hold, now_us)
  serve()
  return { 'broken', was }
end

local at, answers = 8, {}
local function argument()
  at = at + 1
  return ARGV[at - 1]
end
while ARGV[at] do
  local verb, answer = argument(), { 'done' }
  advance()
  if verb == 'acquire' then
    local owner, ttl, delay, wait_ms = argument(), tonumber(argument()), tonumber(argument()), tonumber(argument())
    local wants = {}
    for i = 1, tonumber(argument()) do wants[i] = argument() end
    answer = acquire(owner, ttl, delay, wait_ms, wants)
  elseif verb == 'pick_up' then
    answer = pick_up(argument(), argument())
  elseif verb == 'call_off' then
    answer = call_off(argument(), argument())
  elseif verb == 'take_back' then
    answer = take_back(argument(), argument(), tonumber(argument()))
  elseif verb == 'renew' then
    answer = renew(argument(), argument())
  elseif verb == 'release' then
    answer = release(argument(), argument())
  elseif verb == 'break' then
    answer = break_hold(argument())
  end
  answers[#answers + 1] = answer
end
if #offered > 0 then tell(ARGV[2], ARGV[3] .. ' !locks ' .. table.concat(offered, ' ')) end
local waits = call('ZRANGE', WAIT_ENDS, 0, 0, 'WITHSCORES')[2]
local holds = waits and call('ZRANGE', HOLD_ENDS, 0, 0, 'WITHSCORES')[2]
local next_us = waits and whole(math.min(tonumber(waits), tonumber(holds or waits))) or ''
return { answers, offered, next_us, expired }
