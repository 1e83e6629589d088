-- A part of the entries.
-- KEYS: entries. ARGV: cursor, about how many. Returns this second, the next cursor, and pairs
-- of field and entry.
local part = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
local flat, pairs = part[2], {}
for i = 1, #flat, 2 do
  pairs[#pairs + 1] = {flat[i], flat[i + 1]}
end
return {now(), part[1], pairs}
