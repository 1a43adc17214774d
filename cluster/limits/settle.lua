-- Ends a lease, and gives a tenant's unused tokens back.
--
-- KEYS[1]  the tenant's buckets: "tokens" -> level, "tokens_at" -> ms
-- KEYS[2]  the tenant's leases: member -> its end, ms
-- ARGV[1]  tokens a minute, "-1" without limit
-- ARGV[2]  unused tokens; less than 0 are owed
-- ARGV[3]  time to live of the buckets, ms
-- ARGV[4..] members of the lease
-- Returns  the number of members that there were

local per_min = tonumber(ARGV[1])
local stored = redis.call('HMGET', KEYS[1], 'tokens', 'tokens_at')
local before, at = tonumber(stored[1] or ''), tonumber(stored[2] or '')
if per_min >= 0 and before and at then
    local time = redis.call('TIME')
    local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
    local level = math.min(per_min, before + math.max(0, now - at) * per_min / 60000)
    level = math.min(per_min, level + tonumber(ARGV[2]))
    redis.call('HSET', KEYS[1], 'tokens', tostring(level), 'tokens_at', now)
    redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
local num_ended = 0
for i = 4, #ARGV do
    num_ended = num_ended + redis.call('ZREM', KEYS[2], ARGV[i])
end
return num_ended
