-- Prolongs what would end by itself: a tenant's leases, or a replica's sign of life.
--
-- KEYS[1]  member -> its end, ms
-- ARGV[1]  how long from now, ms
-- ARGV[2..] members
-- Returns  the number of members that have not ended

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
for i = 2, #ARGV do
    redis.call('ZADD', KEYS[1], now + tonumber(ARGV[1]), ARGV[i])
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return redis.call('ZCARD', KEYS[1])
