-- Tells all what is written, and forgets what has been for long.
-- KEYS: stream. ARGV: oldest id to keep, channel, message.
redis.call('XTRIM', KEYS[1], 'MINID', '~', ARGV[1])
redis.call('PUBLISH', ARGV[2], ARGV[3])
