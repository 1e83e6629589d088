-- Writes all records or none. Returns the new versions, or the first key with a conflict.
-- KEYS: values, names, last version. ARGV: for each record key, expectation, action, value.
local values, names, last = KEYS[1], KEYS[2], KEYS[3]

for i = 1, #ARGV, 4 do
  local key, expected = ARGV[i], ARGV[i + 1]
  if expected ~= 'any' then
    local stored = redis.call('HGET', values, key)
    if (stored and string.match(stored, '^%d+') or 'absent') ~= expected then
      return key
    end
  end
end

local time = redis.call('TIME')
local version = math.max(
  tonumber(redis.call('GET', last) or 0),
  tonumber(time[1]) * 1000000 + tonumber(time[2])
)
local versions = {}
for i = 1, #ARGV, 4 do
  local key = ARGV[i]
  if ARGV[i + 2] == 'delete' then
    redis.call('HDEL', values, key)
    redis.call('ZREM', names, key)
    versions[#versions + 1] = 0
  else
    version = version + 1
    redis.call('HSET', values, key, string.format('%.0f ', version) .. ARGV[i + 3])
    redis.call('ZADD', names, 0, key)
    versions[#versions + 1] = version
  end
end
redis.call('SET', last, string.format('%.0f', version))
return versions
