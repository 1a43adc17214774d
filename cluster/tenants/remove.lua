-- Removes a tenant and all its keys.
--
-- KEYS[1]  all tenants: name -> record
-- KEYS[2]  the ids of the tenant's keys
-- ARGV[1]  name
-- ARGV[2]  what the names of keys start with, before their ids; in the slot of KEYS
-- Returns  1, or 0 if there is no such tenant

for _, id in ipairs(redis.call('SMEMBERS', KEYS[2])) do
    redis.call('DEL', ARGV[2] .. id)
end
redis.call('DEL', KEYS[2])
return redis.call('HDEL', KEYS[1], ARGV[1])
