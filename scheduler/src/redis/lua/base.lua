-- The queue's state machine as one atomic script: an event in, effects out. It decides what
-- scheduler/src/queue decides, on state that all servers share; the simulation holds the two
-- against each other, effect by effect.
--
-- KEYS[1]: what every key begins with, hash tag included.
-- ARGV: the time in ms, or '' for the server's own; the frontend that calls; 15 limits in the
-- order of `Limits`; the event; its arguments.
-- Answer: the time, that of the next timer ('' for none), and the effects, each encoded by `enc`.
-- What another frontend must know is published to its channel at the same time.

local call, P, M, T = redis.call, KEYS[1], KEYS[1] .. ':m', KEYS[1] .. ':timers'
local Q = {}

local given = ARGV[1] ~= ''
local now
if given then
  now = tonumber(ARGV[1])
else
  local time = call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local me = ARGV[2]
local LIMITS = {
  max_queued = 3, max_requests = 4, unsatisfiable_grace = 5, abandon_grace = 6,
  heartbeat_timeout = 7, lease_slack = 8, cancel_timeout = 9, max_retries = 10,
  max_returns = 11, retry_delay = 12, poison_kills = 13, completed_ttl = 14, max_completed = 15,
  max_completed_bytes = 16, max_idle_lanes = 17,
}
local function limit(name) return tonumber(ARGV[LIMITS[name]]) end
local event = ARGV[18]
local function arg(i) return ARGV[18 + i] end

-- Ids are 16 digits, so that their order as text is their order as numbers.
local function pad(n) return string.format('%016.0f', n) end
local function int(n) return string.format('%.0f', n) end

local function bump(field, by) return call('HINCRBY', M, field, by or 1) end

-- 2020 in ms. A thousand ids a ms stay below 2^53 for 278 years from then on.
local EPOCH = 1577836800000
-- An id that was never given out, not even by a state that a failure of Redis took back: from
-- then on the clock has gone on. A given time counts from 1.
local function next_id(field)
  local n = bump(field)
  local least = (now - EPOCH) * 1024
  if not given and n < least then
    n = least
    call('HSET', M, field, int(n))
  end
  return pad(n)
end

-- Fields with their lengths, and how many there are.
local function enc(fields)
  local out = { #fields .. ';' }
  for i = 1, #fields do
    local field = fields[i]
    if type(field) == 'number' then field = int(field) end
    out[#out + 1] = #field .. ':' .. field
  end
  return table.concat(out)
end

local function dec(text)
  local count, at = string.match(text, '^(%d+);()')
  local fields = {}
  for i = 1, tonumber(count) do
    local length, from = string.match(text, '^(%d+):()', at)
    at = from + tonumber(length)
    fields[i] = string.sub(text, from, at - 1)
  end
  return fields
end

local reply, posts = {}, {}
local function emit(...) reply[#reply + 1] = enc({ ... }) end

local function tell(frontend, ...)
  if frontend and frontend ~= '' and frontend ~= me then
    local post = posts[frontend] or {}
    post[#post + 1] = enc({ ... })
    posts[frontend] = post
  end
end

local function tell_all(frontends, ...)
  for _, frontend in ipairs(frontends) do tell(frontend, ...) end
end

-- Frontends at which somebody waits for the task.
local function waiters(task) return call('HKEYS', P .. ':tw:' .. task) end
local function tell_waiters(task, ...) tell_all(waiters(task), ...) end

local function set_timer(at, kind, id) call('ZADD', T, at, kind .. id) end
local function drop_timer(kind, id) call('ZREM', T, kind .. id) end

-- A set in order: the server's own differs from one process to the next.
local function members(key)
  local found = call('SMEMBERS', key)
  table.sort(found)
  return found
end

-- Fields of a hash by name; false where there is none.
local function fetch(key, ...)
  local names = { ... }
  local values = call('HMGET', key, unpack(names))
  local found = {}
  for i, name in ipairs(names) do found[name] = values[i] end
  return found
end
