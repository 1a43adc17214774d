-- Merges a writer's totals into a table: to each cell it adds the new total minus the stored one,
-- if the writer's stored sequence is the one that these totals build on.
--
-- KEYS[1]  the table: cells; and "@<writer>" -> last sequence applied, "f<sequence>" if folded
-- KEYS[2]  the writer's totals in this table
-- KEYS[3]  the index: table name -> version
-- ARGV[1]  writer
-- ARGV[2]  base: the sequence that the totals build on
-- ARGV[3]  sequence
-- ARGV[4]  table name
-- ARGV[5]  the table's epoch, s
-- ARGV[6]  length of an epoch, s
-- ARGV[7]  time to live, ms
-- ARGV[8..] cell, total, cell, total, ... (1 to 500 pairs)
-- Returns  {status, stored sequence, version before, version after, time in us}, as strings
--
-- What is damaged is dropped: a table starts anew, a writer without readable totals is folded.
-- Else the first write is to the table, where a server without memory refuses before any harm.

local function integer(number)
    return string.format('%.0f', number)
end

for _, key in ipairs(KEYS) do
    local kind = redis.call('TYPE', key).ok
    if kind ~= 'hash' and kind ~= 'none' then
        redis.call('DEL', key)
    end
end

local field = '@' .. ARGV[1]
local base, sequence = tonumber(ARGV[2]), tonumber(ARGV[3])
local epoch, epoch_s = tonumber(ARGV[5]), tonumber(ARGV[6])
local time = redis.call('TIME')
local now_s = tonumber(time[1])
local now = now_s * 1000000 + tonumber(time[2])
local before = tonumber(redis.call('HGET', KEYS[3], ARGV[4]) or '0') or 0

local function answer(status, stored, after)
    return {status, integer(stored), integer(before), integer(after or before), integer(now)}
end

local function rebuild()
    redis.call('DEL', KEYS[1], KEYS[2])
    return answer('behind', 0)
end

local record = redis.call('HGET', KEYS[1], field)
local folded = record and string.match(record, '^f(%d+)$')
if folded then
    return answer('folded', tonumber(folded))
end
if record and not string.find(record, '^%d+$') then
    return rebuild()
end
local stored = tonumber(record or '0')
if epoch + 2 * epoch_s <= now_s or epoch > now_s + epoch_s then
    return answer('folded', stored)
end

local function fold()
    redis.call('DEL', KEYS[2])
    redis.call('HSET', KEYS[1], field, 'f' .. record)
    return answer('folded', stored)
end

if record and redis.call('EXISTS', KEYS[2]) == 0 then
    return fold()
end
if not record and redis.call('EXISTS', KEYS[2]) == 1 then
    redis.call('DEL', KEYS[2])
end
if sequence <= stored then
    return answer('duplicate', stored)
end
if base ~= stored then
    return answer('behind', stored)
end

local cells = {}
for i = 8, #ARGV, 2 do
    cells[#cells + 1] = ARGV[i]
end
local old = redis.call('HMGET', KEYS[2], unpack(cells))
local changes = {}
for i = 1, #cells do
    local total = tonumber(old[i] or '0')
    if not total then
        return fold()
    end
    changes[i] = tonumber(ARGV[7 + 2 * i]) - total
end
for i = 1, #cells do
    if changes[i] ~= 0 then
        local done = redis.pcall('HINCRBY', KEYS[1], cells[i], integer(changes[i]))
        if type(done) == 'table' then
            local is_damaged = string.find(done.err, 'integer') or string.find(done.err, 'overflow')
            return is_damaged and rebuild() or done
        end
    end
end
redis.call('HSET', KEYS[2], unpack(ARGV, 8))
redis.call('HSET', KEYS[1], field, ARGV[3])
local after = math.max(now, before + 1)
redis.call('HSET', KEYS[3], ARGV[4], integer(after))
for _, key in ipairs(KEYS) do
    redis.call('PEXPIRE', key, ARGV[7])
end
return answer('applied', stored, after)
