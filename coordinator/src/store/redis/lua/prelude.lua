-- Before every script: the names of keys, the layout of a task's value, and the clock.
--
-- KEYS[1]  what every key of the shard begins with, such as `rd:{7}:`; it names the slot
-- KEYS[2]  never used: two keys that do not exist keep scripts from a slot that is half moved (`link/script.rs`)
-- ARGV[1]  the store's time in µs, or 0 for Redis's own
-- The layout is described in `value.rs`, the keys in `keys.rs`; tests hold that they agree.
local call = redis.call
local shard = KEYS[1]
local TASK, LANE, LANES, BOUNDS = shard .. 't:', shard .. 'l:', shard .. 'L:', shard .. 'D'
local LEASES, GRANTS, ENDS, EXTENDED = shard .. 'r', shard .. 'G', shard .. 'E', shard .. 'u'
local EXPIRY, LOG, COUNTS, ORDINAL, EPOCH = shard .. 'x', shard .. 'log', shard .. 'n', shard .. 'o', shard .. 'e'
local PAUSED, REQUEST, SWEEPS, SWEPT = shard .. 'p', shard .. 'q:', shard .. 'S', shard .. 'logged'
local GATE, SHOWN, VISITS, CHECKPOINT = shard .. 'gate:', shard .. 'shown', shard .. 'v', shard .. 'c:'
local VERSION, HEADER = 1, 50
-- For how long a task is left alone that this release cannot read, so that it does not hold up its neighbours.
local SET_ASIDE_MS = 60000

local now_us = tonumber(ARGV[1])
if now_us == 0 then
  local time = call('TIME')
  now_us = tonumber(time[1]) * 1000000 + tonumber(time[2])
end
local now_ms = math.floor(now_us / 1000)
-- Scores of lanes are µs: a due millisecond, and below it the order of arrival.
local due_now = now_ms * 1000 + 999

-- Lengths of record and meta from a header.
local function lengths(value)
  return struct.unpack('>I2I2', value, 35)
end

-- A task's header, record and meta; nil without such a task. Of a damaged value, what there is.
local function head_of(id)
  local head = call('GETRANGE', TASK .. id, 0, 255)
  if #head == 0 then return nil end
  if #head < HEADER then return head end
  local record, meta = lengths(head)
  local wanted = HEADER + record + meta
  if #head < wanted then head = call('GETRANGE', TASK .. id, 0, wanted - 1) end
  return string.sub(head, 1, wanted)
end

-- A grant is what one claim was given of leases that end together: nonce(8) leased at(6) until(6), then who claimed as
-- `agent|boot`, and a `|` behind it once another run took one of its leases over: as long as nobody ever does, nothing more
-- is asked.
local function grant_of(epoch)
  return call('HGET', GRANTS, epoch) or string.rep('\0', 20)
end

local function claimer_of(grant)
  return string.match(grant, '^[^|]*|[^|]*', 21) or ''
end

local function is_shared(grant)
  return string.find(grant, '|[^|]*|', 21) ~= nil
end

-- An extension is when the lease ends, until(6), then the run that took it over from the one that claimed it, if one did.
local function taker_of(extension)
  return extension and string.sub(extension, 7) or ''
end

-- Who holds each task: '' : nobody; else epoch(8) nonce(8) leased at(6) until(6), whether it was extended (0, 1; 2 : it was taken
-- over), then the run that it belongs to as `agent|boot`.
local function leases_of(ids)
  local leases, grants, extended = {}, {}, nil
  if #ids == 0 then return leases end
  for i, epoch in ipairs(call('ZMSCORE', LEASES, unpack(ids))) do
    leases[i] = ''
    if epoch then
      extended = extended or call('HMGET', EXTENDED, unpack(ids))
      local grant = grants[epoch] or grant_of(epoch)
      grants[epoch] = grant
      local extension, taker = extended[i], taker_of(extended[i])
      leases[i] = struct.pack('>i8', tonumber(epoch)) .. string.sub(grant, 1, 14)
        .. string.sub(extension or string.sub(grant, 15, 20), 1, 6)
        .. (taker ~= '' and '\2' or extension and '\1' or '\0') .. (taker ~= '' and taker or claimer_of(grant))
    end
  end
  return leases
end

-- Leases of a grant are no more. All: these are all that it has, as the same script found before it wrote anything.
local function end_leases(epoch, ids, all)
  if all then
    call('ZREMRANGEBYSCORE', LEASES, epoch, epoch)
  else
    call('ZREM', LEASES, unpack(ids))
  end
  if call('EXISTS', EXTENDED) == 1 then call('HDEL', EXTENDED, unpack(ids)) end
  if all or call('ZCOUNT', LEASES, epoch, epoch) == 0 then
    call('ZREM', ENDS, epoch)
    call('HDEL', GRANTS, epoch)
  end
end

-- Whether the fields of a header can be trusted. Record and meta may still make no sense, which the coordinator finds.
local function readable(head)
  return #head >= HEADER and string.byte(head) == VERSION
end

-- The first `rank|queue` and the rest `dependency|group` of a lane's name.
local function split_lane(lane)
  local rank, queue, rest = string.match(lane, '^(%d)|([^|]*)|(.*)$')
  return rank .. '|' .. queue, rest, queue
end

-- Takes `count` numbers in order that nobody has had: those from `wanted` on, or later ones. They follow the clock in µs.
local function take_ordinals(wanted, count)
  local first = math.max(tonumber(call('GET', ORDINAL) or 0) + 1, wanted)
  call('SET', ORDINAL, string.format('%d', first + count - 1))
  return first
end

-- Epochs of leases taken from now on are above this one: they must be above all that their tasks had before.
local function keep_above(number)
  if number > tonumber(call('GET', EPOCH) or 0) then call('SET', EPOCH, string.format('%d', number)) end
end

-- Adds pairs of score and id to a lane, whose first is due then; returns what is told of it.
local function add_to_lane(lane, pairs_to_add, first, deadline)
  local index, rest, queue = split_lane(lane)
  call('ZADD', LANE .. lane, unpack(pairs_to_add))
  call('ZADD', LANES .. index, 'LT', first, rest)
  call('ZADD', BOUNDS, 'LT', deadline, lane)
  return ' ' .. queue .. ' ' .. string.format('%d', math.floor(first / 1000))
end

-- The lane may have lost its first task: what its index says is put right. Scores at or before now are the moment of its
-- last visit, which is its turn in the rotation, and stay.
local function refresh_lane(lane)
  local index, rest = split_lane(lane)
  local head = call('ZRANGE', LANE .. lane, 0, 0, 'WITHSCORES')
  if #head == 0 then
    call('ZREM', LANES .. index, rest)
    call('ZREM', BOUNDS, lane)
    call('HDEL', SWEEPS, lane)
  elseif tonumber(head[2]) > due_now then
    call('ZADD', LANES .. index, head[2], rest)
  else
    call('ZADD', LANES .. index, 'LT', head[2], rest)
  end
end

-- Moves the counters: a table of `queue|state` to differences.
local function count(changes)
  for field, by in pairs(changes) do
    if by ~= 0 then call('HINCRBY', COUNTS, field, by) end
  end
end

-- Hints may be lost: one that cannot be published does not undo what it tells of.
local function tell(channel, news)
  redis.pcall('PUBLISH', channel, news)
end
