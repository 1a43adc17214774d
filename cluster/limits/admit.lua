-- Takes a request of a tenant: from its two buckets, and a lease for each of its sequences.
--
-- KEYS[1]  the tenant's buckets: "requests", "tokens" -> level; "requests_at", "tokens_at" -> ms
-- KEYS[2]  the tenant's leases: member -> its end, ms
-- ARGV[1]  requests a minute, "-1" without limit
-- ARGV[2]  tokens a minute, "-1" without limit
-- ARGV[3]  sequences at once, "-1" without limit
-- ARGV[4]  tokens that are asked for
-- ARGV[5]  how long a lease lasts, ms
-- ARGV[6]  time to live of the buckets, ms
-- ARGV[7..] members of the lease, one for each sequence
-- Returns  {refused by ("" if taken), wait in ms, requests left, tokens left}, -1 without limit

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

local function level(name, per_min)
    local stored = redis.call('HMGET', KEYS[1], name, name .. '_at')
    local before, at = tonumber(stored[1] or ''), tonumber(stored[2] or '')
    if not before or not at then
        return per_min
    end
    return math.min(per_min, before + math.max(0, now - at) * per_min / 60000)
end

local costs = {requests = 1, tokens = tonumber(ARGV[4])}
local levels, refused, wait = {}, '', 0
for i, name in ipairs({'requests', 'tokens'}) do
    local per_min = tonumber(ARGV[i])
    if per_min >= 0 then
        levels[name] = level(name, per_min)
        local missing = (costs[name] - levels[name]) * 60000 / per_min
        if missing > wait then
            refused, wait = name, missing
        end
    end
end

redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
local most = tonumber(ARGV[3])
if refused == '' and most >= 0 and redis.call('ZCARD', KEYS[2]) + #ARGV - 6 > most then
    refused = 'sequences'
end

if refused == '' then
    for name, before in pairs(levels) do
        levels[name] = before - costs[name]
        redis.call('HSET', KEYS[1], name, tostring(levels[name]), name .. '_at', now)
    end
    redis.call('PEXPIRE', KEYS[1], ARGV[6])
    for i = 7, #ARGV do
        redis.call('ZADD', KEYS[2], now + tonumber(ARGV[5]), ARGV[i])
    end
    redis.call('PEXPIRE', KEYS[2], ARGV[5])
end

local function left(name)
    return levels[name] and math.max(0, math.floor(levels[name])) or -1
end
return {refused, math.ceil(wait), left('requests'), left('tokens')}
