-- How many pending blobs were not handed out for longer than the age.
-- KEYS: queue. ARGV: age in milliseconds.
return redis.call('ZCOUNT', KEYS[1], '-inf', '(' .. string.format('%.0f', now_ms() - ARGV[1]))
