-- Entries of the fields, each promised for at least the lease.
-- KEYS: entries. ARGV: lease, fields. Returns this second and the entries.
local least, renewed = lease(ARGV[1])
local found, count = {}, 0
local step = 1000
for from = 2, #ARGV, step do
  local to = math.min(from + step - 1, #ARGV)
  local entries = redis.call('HMGET', KEYS[1], unpack(ARGV, from, to))
  for i = 1, to - from + 1 do
    local entry = entries[i]
    if entry and ends(entry) < least then
      entry = with_end(entry, renewed)
      redis.call('HSET', KEYS[1], ARGV[from + i - 1], entry)
    end
    count = count + 1
    found[count] = entry
  end
end
return {now(), found}
