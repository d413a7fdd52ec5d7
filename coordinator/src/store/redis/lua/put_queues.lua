-- Puts policies in force, all of them or none, and keeps their last versions.
--
-- KEYS[1]: what every key that there is once begins with
-- ARGV: now, channel, origin, actor or '', reason or '', versions kept, what is said of a policy that was found in force, then
--   for each queue its name, the version that the change was made from or '', and its policy
-- Returns: nothing where it is done; else each queue that is at another version, and that version. O(n).
local QUEUES, VERSIONS = shard .. 'queues', shard .. 'versions'
local conflicts, changes = {}, {}
for i = 8, #ARGV, 3 do
  local name, expected, policy = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local before = call('HGET', QUEUES, name)
  if before ~= policy then
    local version = tonumber(call('HGET', VERSIONS, name) or 0)
    if expected ~= '' and tonumber(expected) ~= version then
      conflicts[#conflicts + 1] = name
      conflicts[#conflicts + 1] = version
    end
    changes[#changes + 1] = { name = name, before = before, version = version, policy = policy }
  end
end
if #conflicts > 0 or #changes == 0 then return conflicts end

local function record(history, version, actor, reason, policy)
  local entry = { at_ms = now_ms, actor = actor, reason = reason, policy = policy }
  call('HSET', history, string.format('%d', version), cjson.encode(entry))
end

local last = tonumber(call('GET', shard .. 'changes') or 0)
call('SET', shard .. 'changes', string.format('%d', math.max(now_us, last + 1)))
for _, change in ipairs(changes) do
  local history, version = shard .. 'h:' .. change.name, change.version
  local newest = call('HGET', history, string.format('%d', version))
  -- A release that keeps no versions may have put there what is in force.
  if change.before and not (newest and cjson.decode(newest).policy == change.before) then
    if newest then version = version + 1 end
    record(history, version, '', ARGV[7], change.before)
  end
  version = version + 1
  record(history, version, ARGV[4], ARGV[5], change.policy)
  -- Up to two were added.
  local over = version - tonumber(ARGV[6])
  if over >= 0 then call('HDEL', history, string.format('%d', over), string.format('%d', over - 1)) end
  call('HSET', VERSIONS, change.name, string.format('%d', version))
  call('HSET', QUEUES, change.name, change.policy)
end
call('PUBLISH', ARGV[2], ARGV[3] .. ' !queues')
return conflicts
