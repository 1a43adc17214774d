-- Empties a table and folds all its writers, so that what they counted until now stays gone.
--
-- KEYS[1]  the table
-- KEYS[2]  the index: table name -> version
-- KEYS[3..] totals of writers that are known
-- ARGV[1]  table name
-- ARGV[2]  time to live, ms
-- Returns  the number of fields that were removed

for i = 1, 2 do
    local kind = redis.call('TYPE', KEYS[i]).ok
    if kind ~= 'hash' and kind ~= 'none' then
        redis.call('DEL', KEYS[i])
    end
end

local writers, num_removed = {}, 0
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
    if string.sub(field, 1, 1) == '@' then
        writers[field] = string.match(redis.call('HGET', KEYS[1], field), '%d+') or '0'
    else
        num_removed = num_removed + 1
    end
end
redis.call('DEL', KEYS[1])
for i = 3, #KEYS do
    redis.call('DEL', KEYS[i])
end
if next(writers) == nil then
    redis.call('HDEL', KEYS[2], ARGV[1])
    return num_removed
end
for field, sequence in pairs(writers) do
    redis.call('HSET', KEYS[1], field, 'f' .. sequence)
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local before = tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or '0') or 0
redis.call('HSET', KEYS[2], ARGV[1], string.format('%.0f', math.max(now, before + 1)))
return num_removed
