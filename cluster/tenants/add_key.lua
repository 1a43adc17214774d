-- Gives a tenant one more key, and lets its others end.
--
-- KEYS[1]  all tenants: name -> record
-- KEYS[2]  the ids of the tenant's keys
-- KEYS[3]  the new key: "tenant" and "digest"
-- ARGV[1]  name
-- ARGV[2]  id of the new key
-- ARGV[3]  its digest
-- ARGV[4]  how long the others go on, ms; "-1" for ever
-- ARGV[5]  what the names of keys start with, before their ids; in the slot of KEYS
-- Returns  1, or 0 if there is no such tenant

if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then
    return 0
end
local grace_ms = tonumber(ARGV[4])
for _, id in ipairs(redis.call('SMEMBERS', KEYS[2])) do
    local key = ARGV[5] .. id
    local left_ms = redis.call('PTTL', key)
    if left_ms == -2 or grace_ms == 0 then
        redis.call('DEL', key)
        redis.call('SREM', KEYS[2], id)
    elseif grace_ms > 0 and (left_ms == -1 or left_ms > grace_ms) then
        redis.call('PEXPIRE', key, ARGV[4])
    end
end
redis.call('HSET', KEYS[3], 'tenant', ARGV[1], 'digest', ARGV[3])
redis.call('SADD', KEYS[2], ARGV[2])
return 1
