-- Gives a blob its place. Returns the generation that counts.
-- KEYS: entries, pending, queue, bytes, the key for the blob's bytes.
-- ARGV: lease, seconds to keep bytes, field, generation.
local least, renewed = lease(ARGV[1])
local field = ARGV[3]
local entry = redis.call('HGET', KEYS[1], field)
if entry and generation(entry) ~= '' then
  if ends(entry) < least then
    redis.call('HSET', KEYS[1], field, with_end(entry, renewed))
  end
  return generation(entry)
end
if entry then
  renewed = math.max(renewed, ends(entry))
  local bytes = redis.call('HGET', KEYS[2], field)
  if bytes then
    redis.call('SET', KEYS[5], bytes, 'EX', ARGV[2])
  end
  redis.call('HDEL', KEYS[2], field)
  redis.call('ZREM', KEYS[3], field)
else
  add_bytes(KEYS[4], size(field))
end
redis.call('HSET', KEYS[1], field, struct.pack('>I4', renewed) .. ARGV[4])
return ARGV[4]
