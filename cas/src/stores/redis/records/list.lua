-- Returns whether there may be more, and a flat list of keys and what is stored.
-- KEYS: values, names. ARGV: lower and upper bound, 1 for backwards, most records, and the
-- bytes after which no further record is read.
local values, names = KEYS[1], KEYS[2]
local from, to, limit, bytes = ARGV[1], ARGV[2], tonumber(ARGV[4]), tonumber(ARGV[5])
local keys
if ARGV[3] == '1' then
  keys = redis.call('ZREVRANGEBYLEX', names, to, from, 'LIMIT', 0, limit)
else
  keys = redis.call('ZRANGEBYLEX', names, from, to, 'LIMIT', 0, limit)
end
local found, size = {}, 0
for i, key in ipairs(keys) do
  local stored = redis.call('HGET', values, key)
  found[#found + 1] = key
  found[#found + 1] = stored
  size = size + #stored
  if size >= bytes and i < #keys then
    return {1, found}
  end
end
return {#keys == limit and 1 or 0, found}
