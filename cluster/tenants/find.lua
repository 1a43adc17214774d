-- Finds whose a key is.
--
-- KEYS[1]  the key: "tenant" and "digest"
-- KEYS[2]  all tenants: name -> record
-- Returns  {digest, record}, or nothing if there is no such key or tenant

local key = redis.call('HMGET', KEYS[1], 'tenant', 'digest')
if not key[1] or not key[2] then
    return {}
end
local record = redis.call('HGET', KEYS[2], key[1])
return record and {key[2], record} or {}
