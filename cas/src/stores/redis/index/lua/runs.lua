-- Notes invocations that run, forgets those that are over, and says which began first.
-- KEYS: a hash of ids to the second in which each began and the one until which it counts as running.
-- ARGV: id, age and seconds left of each. Returns this second, and when the oldest began (false: none runs).
local second = now()
for i = 1, #ARGV, 3 do
  local since = math.max(second - tonumber(ARGV[i + 1]), 0)
  local till = second + tonumber(ARGV[i + 2])
  local known = redis.call('HGET', KEYS[1], ARGV[i])
  if known then
    local first, last = struct.unpack('>I4I4', known)
    since, till = math.min(since, first), math.max(till, last)
  end
  redis.call('HSET', KEYS[1], ARGV[i], struct.pack('>I4I4', since, till))
end
local all = redis.call('HGETALL', KEYS[1])
local oldest = false
for i = 1, #all, 2 do
  local since, till = struct.unpack('>I4I4', all[i + 1])
  if till <= second then
    redis.call('HDEL', KEYS[1], all[i])
  elseif not oldest or since < oldest then
    oldest = since
  end
end
return {second, oldest}
