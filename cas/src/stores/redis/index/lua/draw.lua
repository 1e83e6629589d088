-- The value that the bucket drew, or this one.
-- KEYS: random. ARGV: a value.
redis.call('SET', KEYS[1], ARGV[1], 'NX')
return redis.call('GET', KEYS[1])
