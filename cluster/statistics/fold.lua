-- Lets go of writers' totals, and moves cells of a closed table into a past one.
--
-- KEYS[1]  the source table
-- KEYS[2]  the target table (the source again if no cells are moved)
-- KEYS[3]  the index: table name -> version
-- KEYS[4..] the writers' totals in the source, one key a writer
-- ARGV[1]  source name
-- ARGV[2]  target name
-- ARGV[3]  what a count of the source is worth in the target
-- ARGV[4]  when the source closes, s; cells are moved only from then on
-- ARGV[5]  time to live of the target, ms
-- ARGV[6]  time to live of a source that is left without cells, ms
-- ARGV[7]  "1" if no cells but these are known in the source
-- ARGV[8..] writer, sequence for each key from KEYS[4] on; then the cells (at most 500)
-- Returns  the number of cells moved

local function integer(number)
    return string.format('%.0f', number)
end

for i = 1, 3 do
    local kind = redis.call('TYPE', KEYS[i]).ok
    if kind ~= 'hash' and kind ~= 'none' then
        redis.call('DEL', KEYS[i])
    end
end

local time = redis.call('TIME')
local now_s = tonumber(time[1])
local now = now_s * 1000000 + tonumber(time[2])

local function touch(name)
    local before = tonumber(redis.call('HGET', KEYS[3], name) or '0') or 0
    redis.call('HSET', KEYS[3], name, integer(math.max(now, before + 1)))
    redis.call('PEXPIRE', KEYS[3], ARGV[5])
end

local is_changed = false
local at = 8
for i = 4, #KEYS do
    local field, sequence = '@' .. ARGV[at], ARGV[at + 1]
    local record = redis.call('HGET', KEYS[1], field)
    if record == sequence or record == 'f' .. sequence then
        redis.call('DEL', KEYS[i])
        redis.call('HSET', KEYS[1], field, 'f' .. sequence)
        is_changed = is_changed or record == sequence
    end
    at = at + 2
end

local num_moved = 0
if at <= #ARGV and now_s >= tonumber(ARGV[4]) then
    local cells = {unpack(ARGV, at)}
    local counts = redis.call('HMGET', KEYS[1], unpack(cells))
    for i, cell in ipairs(cells) do
        if counts[i] then
            local worth = math.floor((tonumber(counts[i]) or 0) * tonumber(ARGV[3]))
            if worth ~= 0 then
                local done = redis.pcall('HINCRBY', KEYS[2], cell, integer(worth))
                if type(done) == 'table' then
                    redis.call('HSET', KEYS[2], cell, integer(worth))
                end
            end
            num_moved = num_moved + 1
        end
    end
    redis.call('HDEL', KEYS[1], unpack(cells))
    redis.call('PEXPIRE', KEYS[2], ARGV[5])
    if num_moved > 0 then
        touch(ARGV[2])
    end
end

local is_empty = ARGV[7] == '1' and now_s >= tonumber(ARGV[4])
if is_empty then
    for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
        if string.sub(field, 1, 1) ~= '@' then
            if string.find(redis.call('HGET', KEYS[1], field), '^%-?%d+$') then
                is_empty = false
            else
                redis.call('HDEL', KEYS[1], field)
            end
        end
    end
end
if is_empty then
    redis.call('PEXPIRE', KEYS[1], ARGV[6])
    redis.call('HDEL', KEYS[3], ARGV[1])
elseif is_changed or num_moved > 0 then
    touch(ARGV[1])
end
return num_moved
