-- Lets leases that end later end after so many seconds.
-- KEYS: entries. ARGV: seconds, fields.
local last = now() + tonumber(ARGV[1]) + 1
for i = 2, #ARGV do
  local entry = redis.call('HGET', KEYS[1], ARGV[i])
  if entry and ends(entry) > last then
    redis.call('HSET', KEYS[1], ARGV[i], with_end(entry, last))
  end
end
