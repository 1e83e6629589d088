-- Adds a batch of executions and beginnings, once however often it is called for the same batch.
-- KEYS: stream, number of the sender's last batch. ARGV: number of this batch, seconds for
-- which the number is kept, most entries in the stream, channel, then of each entry what it is
-- ('x' an execution, 'b' a beginning) and its message.
local sent = tonumber(redis.call('GET', KEYS[2]) or 0)
if tonumber(ARGV[1]) <= sent then
  return
end
local id
for i = 5, #ARGV, 2 do
  id = redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[3], '*', ARGV[i], ARGV[i + 1])
end
redis.call('SET', KEYS[2], ARGV[1], 'EX', ARGV[2])
redis.call('PUBLISH', ARGV[4], id)
