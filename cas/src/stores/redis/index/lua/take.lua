-- Hands out pending blobs that were not for longer than the age.
-- KEYS: pending, queue. ARGV: age in milliseconds, most blobs. Returns pairs of field and bytes.
local now = now_ms()
local before = '(' .. string.format('%.0f', now - ARGV[1])
local fields = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', before, 'LIMIT', 0, ARGV[2])
local taken = {}
for i, field in ipairs(fields) do
  redis.call('ZADD', KEYS[2], now, field)
  taken[i] = {field, redis.call('HGET', KEYS[1], field)}
end
return taken
