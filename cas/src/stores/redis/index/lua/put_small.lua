-- Keeps small blobs, as pending where they are new.
-- KEYS: entries, pending, queue, bytes, a key for the bytes of each blob.
-- ARGV: lease, seconds to keep bytes, then field and bytes of each blob.
local least, renewed = lease(ARGV[1])
local added = 0
for i = 3, #ARGV, 2 do
  local field, bytes = ARGV[i], ARGV[i + 1]
  local entry = redis.call('HGET', KEYS[1], field)
  if not entry then
    redis.call('HSET', KEYS[1], field, struct.pack('>I4', renewed))
    redis.call('HSET', KEYS[2], field, bytes)
    redis.call('ZADD', KEYS[3], now_ms(), field)
    added = added + size(field)
  else
    if ends(entry) < least then
      redis.call('HSET', KEYS[1], field, with_end(entry, renewed))
    end
    if generation(entry) ~= '' then
      -- The bytes may have expired here, and somebody has them at hand.
      redis.call('SET', KEYS[4 + (i - 1) / 2], bytes, 'EX', ARGV[2])
    end
  end
end
add_bytes(KEYS[4], added)
