-- The queue's state machine as one atomic script: an event in, effects out. Each file decides what
-- the Rust file beside it decides, function by function, on state that all servers share; the
-- simulation holds the two against each other, effect by effect. Files with `engine` in their
-- first line have no Rust beside them: they are about frontends, which share this state.
--
-- It runs as a script, which sets all of this up anew for each call, or as a function of a library,
-- which does so once: `begin` sets what belongs to one call.
--
-- The key: what every key begins with, hash tag included.
-- Arguments: the time in ms, or '' for the server's own; the frontend that calls; the limits in the
-- order of `LIMITS`; the event; its arguments.
-- Answer: the time, that of the next timer ('' for none), and the effects, each encoded by `enc`.
-- What another frontend must know is published to its channel at the same time.

local call, argv
-- What keys begin with, the hash of what is counted, and the timers.
local P, M, T
local given, now, me, event
local reply, posts
-- Who could run no more can again, of one instance or caller.
local freed

-- Functions that few calls need are made when the first of them is asked for: to make one costs
-- about as much as to call a command.
local rare, Q = {}, {}
local function rarely(make) rare[#rare + 1] = make end
local function made(all, name)
  for _, make in ipairs(rare) do make() end
  rare = {}
  return rawget(all, name)
end

local LIMITS = {
  'max_queued', 'instance_queued', 'instance_running', 'caller_queued', 'caller_running',
  'max_requests', 'unsatisfiable_grace', 'abandon_grace', 'heartbeat_timeout', 'lease_slack',
  'cancel_timeout', 'max_retries', 'max_returns', 'retry_delay', 'elsewhere_wait',
  'poison_kills', 'completed_ttl', 'max_completed', 'max_completed_bytes', 'max_idle_lanes',
}
local BEFORE_LIMITS = 2
local limits = {}
for i = 1, #LIMITS do limits[LIMITS[i]] = i + BEFORE_LIMITS end
local function limit(name) return tonumber(argv[limits[name]]) end
local EVENT = BEFORE_LIMITS + #LIMITS + 1
local function arg(i) return argv[EVENT + i] end
-- The arguments of the event from the i-th on.
local function args(i)
  local list = {}
  for k = EVENT + i, #argv do list[#list + 1] = argv[k] end
  return list
end

local function begin(key, arguments)
  call, argv, P, M, T = redis.call, arguments, key, key .. ':m', key .. ':timers'
  given, me, event = argv[1] ~= '', argv[2], argv[EVENT]
  if given then
    now = tonumber(argv[1])
  else
    local time = call('TIME')
    now = time[1] * 1000 + math.floor(time[2] / 1000)
  end
  reply, posts, freed = {}, {}, false
  if rare[1] then setmetatable(Q, { __index = made }) end
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

local function tk(id) return P .. ':t:' .. id end

-- Fields of a task that is not finished; nil where there is none.
local function task_of(id, ...)
  local t = fetch(tk(id), 'st', ...)
  if not t.st or t.st == 'F' then return nil end
  return t
end

-- Where a task waits.
local function place(id) return fetch(tk(id), 'lane', 'prio', 'inv', 'exp') end

-- Who waits for a task, by frontend: one that dies leaves nobody waiting. Returns how many do at
-- this one; less than none: fewer were known than left.
local function count_waiter(id, by)
  local count = call('HINCRBY', P .. ':tw:' .. id, me, by)
  if count > 0 then
    call('SADD', P .. ':fw:' .. me, id)
  else
    call('HDEL', P .. ':tw:' .. id, me)
    call('SREM', P .. ':fw:' .. me, id)
  end
  return count
end

-- For each request whether it is marked: x cancelled, g forgotten by its client. `any`: false
-- where none is.
local function flags(id, count, mark, any)
  if not any then return string.rep('0', count) end
  local text = ''
  for i = 0, count - 1 do text = text .. (call('HEXISTS', tk(id), mark .. i) == 1 and '1' or '0') end
  return text
end

-- What the journal needs of a task: the job, its latest run, and the requests but the first.
local function record(id)
  local t = fetch(tk(id), 'job', 'qat', 'lat', 'wname', 'attempts', 'nreq', 'ncan')
  local count = tonumber(t.nreq)
  local run = { t.job, t.qat, t.lat or '0', t.wname or '', t.attempts, flags(id, count, 'x', t.ncan) }
  for i = 1, count - 1 do run[#run + 1] = call('HGET', tk(id), 'r' .. i) end
  return enc(run)
end

rarely(function()
  function Q.frontend_of(worker) return call('HGET', P .. ':wk:' .. worker, 'fe') end

  function Q.close_worker(worker, reason)
    emit('CloseWorker', worker, reason)
    tell(Q.frontend_of(worker), 'CloseWorker', worker, reason)
  end

  function Q.requeued(task, at_once)
    emit('Requeued', task, at_once)
    tell_waiters(task, 'Requeued', task)
  end

  -- Nobody could speak for so long that silence says nothing: Redis was away, or all frontends.
  function Q.all_were_cut_off()
    local beat = tonumber(call('HGET', M, 'beat') or now)
    return now - beat > limit('heartbeat_timeout') / 2
  end
end)
