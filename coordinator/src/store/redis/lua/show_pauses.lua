-- Shows a shard's claims which queues are paused, unless it shows another change by now than it did.
--
-- ARGV: now, the change that it showed ('' : none), the change that it shows from now on, the queues paused
-- Returns: 1, or 0 where somebody else was faster. O(n): n the queues paused.
if (call('GET', SHOWN) or '') ~= ARGV[2] then return 0 end
call('SET', SHOWN, ARGV[3])
call('DEL', PAUSED)
for i = 4, #ARGV do call('SADD', PAUSED, ARGV[i]) end
return 1
