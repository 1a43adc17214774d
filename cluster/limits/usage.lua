-- Keeps a writer's totals of a day, unless newer ones are there.
--
-- KEYS[1]  the day: "tenant:writer" -> "sequence total total ..."
-- ARGV[1]  time to live, ms
-- ARGV[2..] field, sequence, totals; three for each entry (at most 500)
-- Returns  the number of entries that were newer

local num_written = 0
for i = 2, #ARGV, 3 do
    local stored = redis.call('HGET', KEYS[1], ARGV[i])
    local before = stored and tonumber(string.match(stored, '^%d+') or '') or 0
    if tonumber(ARGV[i + 1]) > before then
        redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1] .. ' ' .. ARGV[i + 2])
        num_written = num_written + 1
    end
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return num_written
