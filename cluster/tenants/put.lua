-- Stores a tenant's record if the one that is stored is the expected one.
--
-- KEYS[1]  all tenants: name -> record
-- ARGV[1]  name
-- ARGV[2]  the expected record, "" if there is to be none
-- ARGV[3]  the new record
-- Returns  1 if it was stored, else 0

if (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[2] then
    return 0
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
