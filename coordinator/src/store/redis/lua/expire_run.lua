-- Lets the leases of one run of an agent end now; the next look at what is over finds them.
--
-- ARGV: now, run
-- Returns: how many. O(n log n): n the leases of the run, which its capacity bounds.
local ids = call('ZRANGEBYSCORE', LEASES .. ARGV[2], '(' .. now_ms, '+inf')
local adds = {}
for _, id in ipairs(ids) do
  local head = call('GETRANGE', TASK .. id, 0, HEADER - 1)
  if #head == HEADER and string.byte(head, 2) == 1 and string.sub(head, 32, 39) == ARGV[2] then
    call('SETRANGE', TASK .. id, 19, struct.pack('>I6', now_ms))
    adds[#adds + 1] = now_ms
    adds[#adds + 1] = id
  end
end
for from = 1, #adds, 2000 do
  call('ZADD', LEASES .. ARGV[2], unpack(adds, from, math.min(from + 1999, #adds)))
end
if #adds > 0 then call('ZADD', RUNS, now_ms, ARGV[2]) end
return #adds / 2
