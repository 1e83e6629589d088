-- Takes or prolongs a right. Returns 1 when the owner has it.
-- KEYS: the right. ARGV: owner, milliseconds.
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
