-- Forgets blobs that are not promised any more, or not beyond a second, and still at their place.
-- KEYS: entries, bytes, a key for the bytes of each blob. ARGV: the second, field and generation of each.
-- Returns 1 or 0 for each.
local second = math.max(now(), tonumber(ARGV[1]))
local evicted, freed = {}, 0
for i = 2, #ARGV, 2 do
  local field = ARGV[i]
  local entry = redis.call('HGET', KEYS[1], field)
  if entry and generation(entry) == ARGV[i + 1] and ends(entry) <= second then
    redis.call('HDEL', KEYS[1], field)
    redis.call('DEL', KEYS[2 + i / 2])
    freed = freed + size(field)
    evicted[#evicted + 1] = 1
  else
    evicted[#evicted + 1] = 0
  end
end
add_bytes(KEYS[2], -freed)
return evicted
