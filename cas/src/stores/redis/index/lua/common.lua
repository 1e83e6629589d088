-- An entry: the second in which its lease is over (4 bytes), then the generation (8 bytes) of a
-- blob that has a place in the object store. Without one the blob is pending.

local function now()
  return tonumber(redis.call('TIME')[1])
end

local function now_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function ends(entry)
  return (struct.unpack('>I4', entry))
end

local function generation(entry)
  return string.sub(entry, 5)
end

-- Of a lease, written SECONDS+MORE: the least end that keeps a promise of so many seconds, counted
-- from the end of this second; and the end that it gets when it is renewed, which is later, so that
-- most calls find a lease that is long enough and write nothing.
local function lease(text)
  local seconds, more = string.match(text, '^(%d+)%+(%d+)$')
  local least = now() + tonumber(seconds) + 1
  return least, least + tonumber(more)
end

local function with_end(entry, seconds)
  return struct.pack('>I4', seconds) .. generation(entry)
end

-- The size of a blob: the last 8 bytes of its field.
local function size(field)
  local high, low = struct.unpack('>I4I4', string.sub(field, -8))
  return high * 4294967296 + low
end

local function add_bytes(key, sum)
  if sum ~= 0 then
    redis.call('INCRBY', key, string.format('%.0f', sum))
  end
end

