-- Keeps a document of drafter changes, if nobody else has changed it meanwhile. No time to live:
-- it is what an operator has said, and not what was counted.
--
-- KEYS[1]  the document: a hash of version and content
-- ARGV[1]  the version that it replaces, 0 for none
-- ARGV[2]  its own version
-- ARGV[3]  its content
-- Returns  1 if it is kept, 0 if another version was there

local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'hash' and kind ~= 'none' then
    redis.call('DEL', KEYS[1])
end
local version = redis.call('HGET', KEYS[1], 'version') or '0'
if (tonumber(version) or 0) ~= tonumber(ARGV[1]) then
    return 0
end
redis.call('HSET', KEYS[1], 'version', ARGV[2], 'content', ARGV[3])
return 1
