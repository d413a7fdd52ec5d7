-- A task as it lies there, and who holds it.
--
-- ARGV: now, id
-- Returns: its value, its lease ('' : nobody holds it); nothing where there is no such task. O(log m): m the leases.
local value = call('GET', TASK .. ARGV[2])
if not value then return {} end
return { value, leases_of({ ARGV[2] })[1] }
