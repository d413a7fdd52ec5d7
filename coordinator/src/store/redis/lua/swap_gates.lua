-- Changes gates, each if it is still what it was when that was decided.
--
-- KEYS[1]: what every key that there is once begins with
-- ARGV: now, channel, origin, most gates, most bytes of a value, then for each:
--   the key of its scope, version that was seen (0: there was none), 'put' | 'forget', value, whether others are told at once (0 | 1)
-- Returns for each: { 'now', its version (0: it is forgotten) } | { 'no room' }
--   | { 'changed', version, value } what is there instead | { 'changed' } nothing is. O(n): n the batch.
local gates, FIELDS = shard .. 'gates', 5
local most, most_bytes = tonumber(ARGV[4]), tonumber(ARGV[5])
local told, reply = false, {}

-- The last change of any gate, and how many there are: kept like a gate, under no scope's key.
local last, there = string.match(call('HGET', gates, '') or '0 0', '^(%d+) (%d+)$')
last, there = tonumber(last), tonumber(there)

-- Notes a change that makes so many gates more; returns its number. Unlike all before it, also those that a failover or a
-- restore has undone: a time, not a count.
local function next_change(more)
  last, there = math.max(now_us, last + 1), there + more
  call('HSET', gates, '', string.format('%d %d', last, there))
  return string.format('%d', last)
end

for at = 6, #ARGV, FIELDS do
  local scope, seen, verb, value = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local known = call('HGET', gates, scope)
  local version, kept = string.match(known or '', '^(%d+) (.*)$')
  local answer
  if (known and version or '0') ~= seen then
    answer = known and { 'changed', version or '', kept or '' } or { 'changed' }
  elseif verb == 'forget' then
    if known then
      next_change(-1)
      call('HDEL', gates, scope)
    end
    answer = { 'now', '0' }
  elseif #value > most_bytes or not known and there >= most then
    answer = { 'no room' }
  else
    local change = next_change(known and 0 or 1)
    call('HSET', gates, scope, change .. ' ' .. value)
    answer = { 'now', change }
  end
  told = told or answer[1] == 'now' and ARGV[at + 4] == '1'
  reply[#reply + 1] = answer
end
if told then tell(ARGV[2], ARGV[3] .. ' !gates') end
return reply
