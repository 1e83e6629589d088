-- Forgets a blob that is still at its place.
-- KEYS: entries, pending, queue, bytes, the key for the blob's bytes.
-- ARGV: field, generation (nothing: pending). Returns 1 when it did.
local field = ARGV[1]
local entry = redis.call('HGET', KEYS[1], field)
if not entry or generation(entry) ~= ARGV[2] then
  return 0
end
redis.call('HDEL', KEYS[1], field)
redis.call('HDEL', KEYS[2], field)
redis.call('ZREM', KEYS[3], field)
redis.call('DEL', KEYS[5])
add_bytes(KEYS[4], -size(field))
return 1
