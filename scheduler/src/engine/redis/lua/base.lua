-- The queue's state machine as one atomic script: an event in, effects out. It decides what
-- scheduler/src/queue decides, on state that all servers share; the simulation holds the two
-- against each other, effect by effect.
--
-- KEYS[1]: what every key begins with, hash tag included.
-- ARGV: the time in ms, or '' for the server's own; the frontend that calls; the limits in the
-- order of `LIMITS`; the event; its arguments.
-- Answer: the time, that of the next timer ('' for none), and the effects, each encoded by `enc`.
-- What another frontend must know is published to its channel at the same time.

local call, P, M, T = redis.call, KEYS[1], KEYS[1] .. ':m', KEYS[1] .. ':timers'
-- Functions that few calls need are made when the first of them is asked for: to make one costs
-- about as much as to call a command.
local rare = {}
local function rarely(make) rare[#rare + 1] = make end
local Q = setmetatable({}, { __index = function(all, name)
  for _, make in ipairs(rare) do make() end
  rare = {}
  return rawget(all, name)
end })

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
  'max_queued', 'instance_queued', 'instance_running', 'caller_queued', 'caller_running',
  'max_requests', 'unsatisfiable_grace', 'abandon_grace', 'heartbeat_timeout', 'lease_slack',
  'cancel_timeout', 'max_retries', 'max_returns', 'retry_delay', 'elsewhere_wait',
  'poison_kills', 'completed_ttl', 'max_completed', 'max_completed_bytes', 'max_idle_lanes',
}
local BEFORE_LIMITS = 2
local limits = {}
for i, name in ipairs(LIMITS) do limits[name] = i + BEFORE_LIMITS end
local function limit(name) return tonumber(ARGV[limits[name]]) end
local EVENT = BEFORE_LIMITS + #LIMITS + 1
local event = ARGV[EVENT]
local function arg(i) return ARGV[EVENT + i] end
-- The arguments of the event from the i-th on.
local function args(i)
  local list = {}
  for k = EVENT + i, #ARGV do list[#list + 1] = ARGV[k] end
  return list
end

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
