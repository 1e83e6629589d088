-- Life of a task but for its leases: see scheduler/src/queue/tasks.rs.
-- States: W waits, D is delayed after a failure, L leased, P its answer is made durable,
-- F finished and kept for a while.

local MAX_UNSATISFIABLE_AT_ONCE = 1000

local function tk(id) return P .. ':t:' .. id end

-- Fields of a task that is not finished; nil where there is none.
local function task_of(id, ...)
  local t = fetch(tk(id), 'st', ...)
  if not t.st or t.st == 'F' then return nil end
  return t
end

local function place_of(id) return fetch(tk(id), 'lane', 'prio', 'inv', 'exp') end

-- Who waits for a task, by frontend: one that dies leaves nobody waiting.
local function count_waiter(id, by)
  local count = call('HINCRBY', P .. ':tw:' .. id, me, by)
  if count > 0 then
    call('SADD', P .. ':fw:' .. me, id)
  else
    call('HDEL', P .. ':tw:' .. id, me)
    call('SREM', P .. ':fw:' .. me, id)
  end
end


local function stop_abandoning(id)
  drop_timer('d', id)
  call('HDEL', tk(id), 'abandon')
end

rarely(function()
  function Q.merge(id, t, s)
    bump('c.merged')
    local request = tonumber(t.nreq)
    call('HSET', tk(id), 'nreq', request + 1, 'waiters', t.waiters + 1, 'r' .. request, s.request,
      'w' .. request, 1)
    if s.skip == '1' then call('HSET', tk(id), 'skip', 1) end
    count_waiter(id, 1)
    local a = fetch(tk(id), 'qat', 'lat', 'wname', 'attempts', 'job')
    emit('Accepted', id, request, 1, t.st, a.qat, a.lat or '0', a.wname or '', a.attempts, a.job)
    if tonumber(s.prio) < tonumber(t.prio) then
      local place = place_of(id)
      if t.st == 'W' then Q.remove(id, place) end
      call('HSET', tk(id), 'prio', s.prio)
      place.prio = s.prio
      if t.st == 'W' then Q.push(id, place) end
    end
    stop_abandoning(id)
  end
end)

-- Tasks that wait at most for what goes with leases to be kept: with 16 KiB each, 160 MiB.
local CARRIED_WHILE = 10000

local function queued() return call('ZCARD', P .. ':waiting') + tonumber(call('HGET', M, 'delayed') or 0) end

-- key, requirement, priority, invocation, expected ms, timeout ms, do_not_cache,
-- skip_cache_lookup, job, request, name of a worker to avoid, what goes with the first lease,
-- instance, caller
function Q.submit()
  local s = {
    key = arg(1), req = arg(2), prio = arg(3), invocation = arg(4), exp = arg(5),
    timeout = arg(6), alone = arg(7), skip = arg(8), job = arg(9), request = arg(10),
    avoid = arg(11), carried = arg(12), instance = arg(13), caller = arg(14),
  }
  local known = s.alone ~= '1' and call('HGET', P .. ':k', s.key)
  if known then
    local t = task_of(known, 'nreq', 'skip', 'waiters', 'prio')
    local room = t and tonumber(t.nreq) < limit('max_requests')
    if room and not (t.skip == '1' and s.skip == '1') then return Q.merge(known, t, s) end
  end
  local of = queued() >= limit('max_queued') and '' or Q.refuses(s)
  if of then
    bump('c.refused')
    return emit('Refused', of)
  end
  bump('c.submitted')
  local id = next_id('next_task')
  local lane, inv = Q.refer_lane(s.req), Q.refer_invocation(s.invocation, s)
  call('HSET', tk(id), 'key', s.key, 'lane', lane, 'inv', inv, 'prio', s.prio, 'exp', s.exp,
    'timeout', s.timeout, 'skip', s.skip, 'nreq', 1, 'waiters', 1, 'attempts', 0, 'returns', 0,
    'kills', 0, 'st', 'W', 'at', now, 'qat', now, 'job', s.job, 'r0', s.request,
    'w0', 1)
  -- With a long queue it would take too much memory.
  if s.carried ~= '' and queued() < CARRIED_WHILE then
    call('HSET', tk(id), 'carried', s.carried)
  end
  local avoid = s.avoid ~= '' and call('HGET', P .. ':wn', s.avoid)
  if avoid then call('HSET', tk(id), 'avoid', avoid) end
  call('ZADD', P .. ':tasks', 0, id)
  if s.alone ~= '1' and not known then call('HSET', P .. ':k', s.key, id) end
  count_waiter(id, 1)
  emit('Accepted', id, 0, 0, 'W', now, '0', '', 0)
  Q.enqueue(id, { lane = lane, inv = inv, prio = s.prio, exp = s.exp, avoid = avoid }, true)
end

-- Waits for a worker from now on, or is given to one at once.
function Q.enqueue(id, place, is_new)
  local served = Q.is_served(place.lane)
  -- Where nobody waits the task would only come to stand there and leave again.
  if served and not freed and call('EXISTS', P .. ':lv:' .. place.lane) == 0
    and not Q.is_full(place.inv) then
    local t = is_new and {} or fetch(tk(id), 'avoid', 'elsewhere')
    local worker = Q.free_worker(place.lane, place.avoid or t.avoid, t.elsewhere)
    if worker then return Q.assign(id, worker) end
  end
  if not is_new then call('HSET', tk(id), 'st', 'W', 'at', now) end
  call('ZADD', P .. ':waiting', now, id)
  Q.count_queued(place.inv, 1)
  Q.push(id, place)
  Q.set_waiting(place.lane, now, id, true)
  if served then Q.dispatch_lane(place.lane) else Q.expect_worker(place.lane) end
end

-- Takes a task out of the waiting ones.
function Q.dequeue(id)
  if call('ZREM', P .. ':waiting', id) == 0 then return end
  local place = place_of(id)
  Q.remove(id, place)
  Q.count_queued(place.inv, -1)
  Q.set_waiting(place.lane, nil, id, false)
  if call('EXISTS', P .. ':ls:' .. place.lane) == 0 then drop_timer('e', place.lane) end
end

rarely(function()
  -- The lane's oldest task, and when it has waited for a worker for too long.
  local function in_vain(lane)
    local first = call('ZRANGE', P .. ':ls:' .. lane, 0, 0, 'WITHSCORES')
    if not first[1] then return nil end
    local unserved = tonumber(call('HGET', P .. ':lane:' .. lane, 'unserved'))
    return first[1], math.max(unserved, tonumber(first[2])) + limit('unsatisfiable_grace')
  end

  -- No worker serves the lane: its tasks fail unless one comes in time.
  function Q.expect_worker(lane)
    local task, at = in_vain(lane)
    if task then set_timer(math.max(at, now + 1), 'e', lane) else drop_timer('e', lane) end
  end

  function Q.check_unsatisfiable(lane)
    local requirement = call('HGET', P .. ':lane:' .. lane, 'req')
    if not requirement or Q.is_served(lane) then return end
    local paused = Q.paused(lane)
    local ending = paused and 'WorkersPaused' or 'Unsatisfiable'
    local detail = enc(paused or { requirement, unpack(Q.offers()) })
    for _ = 1, MAX_UNSATISFIABLE_AT_ONCE do
      local task, at = in_vain(lane)
      if not task or at > now then break end
      Q.finish(task, ending, detail, 0)
    end
    Q.expect_worker(lane)
  end
end)

-- For each request whether it is marked: x cancelled, g forgotten by its client. `any`: false
-- where none is.
local function flags(id, count, mark, any)
  if not any then return string.rep('0', count) end
  local text = ''
  for i = 0, count - 1 do text = text .. (call('HEXISTS', tk(id), mark .. i) == 1 and '1' or '0') end
  return text
end

rarely(function()
  -- A task as it is now, finished or not.
  function Q.state(id)
    local t = fetch(tk(id), 'st', 'job', 'qat', 'lat', 'wname', 'attempts', 'nreq', 'ending',
      'detail', 'answer', 'ncan', 'nfor')
    if not t.st then return emit('Unknown', id) end
    local count = tonumber(t.nreq)
    local state = { 'State', id, t.st, t.job, t.qat, t.lat or '0', t.wname or '', t.attempts,
      flags(id, count, 'x', t.ncan), flags(id, count, 'g', t.nfor), t.ending or '', t.detail or '',
      t.answer or '' }
    for i = 1, count - 1 do state[#state + 1] = call('HGET', tk(id), 'r' .. i) end
    reply[#reply + 1] = enc(state)
  end

  -- task, request
  function Q.attach()
    local id = arg(1)
    local t = task_of(id, 'waiters', 'nreq')
    if t then
      call('HINCRBY', tk(id), 'waiters', 1)
      if tonumber(arg(2)) < tonumber(t.nreq) then call('HINCRBY', tk(id), 'w' .. arg(2), 1) end
      count_waiter(id, 1)
      stop_abandoning(id)
    end
    Q.state(id)
  end

  -- first task, how many
  function Q.page()
    local from = arg(1) == '' and '-' or '[' .. arg(1)
    local tasks = call('ZRANGEBYLEX', P .. ':tasks', from, '+', 'LIMIT', 0, arg(2))
    for _, id in ipairs(tasks) do Q.state(id) end
  end

  -- task, request
  function Q.forget()
    if call('EXISTS', tk(arg(1))) == 1 then call('HSET', tk(arg(1)), 'g' .. arg(2), 1, 'nfor', 1) end
  end

  -- tasks
  function Q.look()
    for _, task in ipairs(args(1)) do Q.state(task) end
  end

  function Q.waiters_left(id, by)
    local t = task_of(id, 'waiters', 'abandon')
    if not t then return end
    local waiters = math.max(0, tonumber(t.waiters) - by)
    call('HSET', tk(id), 'waiters', waiters)
    if waiters == 0 and not t.abandon then
      call('HSET', tk(id), 'abandon', 1)
      set_timer(now + limit('abandon_grace'), 'd', id)
    end
  end

  -- Returns how many wait for the request; nil where there is no such task.
  local function detach(id, request)
    local t = task_of(id, 'w' .. request)
    if not t then return nil end
    count_waiter(id, -1)
    Q.waiters_left(id, 1)
    local count = tonumber(t['w' .. request] or 0)
    if count == 0 then return 0 end
    return call('HINCRBY', tk(id), 'w' .. request, -1)
  end

  -- task, request..., once for each waiter that left
  function Q.detach()
    local told = args(1)
    for i = 1, #told, 2 do detach(told[i], told[i + 1]) end
  end

  -- task, request..., once for each waiter that does not want the answer any more
  function Q.gave_up()
    local told = args(1)
    for i = 1, #told, 2 do
      local id, request = told[i], told[i + 1]
      local others = detach(id, request)
      local t = others and task_of(id, 'waiters')
      if t and t.waiters == '0' and t.st ~= 'P' then
        Q.stop(id, 'NobodyWaits', 'NobodyWaits')
      elseif t and t.waiters ~= '0' and others == 0 then
        Q.cancel_request(id, tonumber(request))
      end
    end
  end

  -- What this frontend waits for, as task and count: what is not named is waited for no more. Of
  -- what is named, less may be known: the frontend was taken for lost, or Redis failed.
  function Q.waits()
    local counts = {}
    local told = args(1)
    for i = 1, #told, 2 do
      local id, count = told[i], tonumber(told[i + 1])
      counts[id] = count
      local more = count - tonumber(call('HGET', P .. ':tw:' .. id, me) or 0)
      if more > 0 and task_of(id) then
        call('HINCRBY', tk(id), 'waiters', more)
        count_waiter(id, more)
        stop_abandoning(id)
      end
    end
    for _, id in ipairs(members(P .. ':fw:' .. me)) do
      local known = tonumber(call('HGET', P .. ':tw:' .. id, me) or 0)
      local gone = known - (counts[id] or 0)
      if gone > 0 and task_of(id) then
        count_waiter(id, -gone)
        Q.waiters_left(id, gone)
      end
    end
  end

  function Q.check_abandoned(id)
    local t = task_of(id, 'waiters')
    if not t then return end
    call('HDEL', tk(id), 'abandon')
    if tonumber(t.waiters) == 0 and t.st ~= 'P' then Q.stop(id, 'NobodyWaits', 'NobodyWaits') end
  end

  -- task, request
  function Q.cancel() Q.cancel_request(arg(1), tonumber(arg(2))) end

  function Q.cancel_request(id, request)
    local t = task_of(id, 'nreq', 'ncan', 'x' .. request)
    if not t or request >= tonumber(t.nreq) or t['x' .. request] or t.st == 'P' then return end
    -- The last one ends with the task.
    if call('HINCRBY', tk(id), 'ncan', 1) == tonumber(t.nreq) then
      return Q.stop(id, 'Cancelled', 'Cancelled')
    end
    call('HSET', tk(id), 'x' .. request, 1)
    local run = Q.run_of(id)
    emit('RequestCancelled', id, request, run)
    tell_waiters(id, 'RequestCancelled', id, request, run)
  end

  -- Ends a task before it has an answer. A lease keeps its slot until it is given back.
  function Q.stop(id, ending, reason)
    local t = task_of(id, 'at')
    if t.st == 'L' then Q.revoke(t.at, reason) end
    Q.finish(id, ending, enc({}), 0)
  end

  function Q.retry(id)
    local t = task_of(id)
    if t and t.st == 'D' then
      bump('delayed', -1)
      local place = place_of(id)
      Q.count_queued(place.inv, -1)
      Q.enqueue(id, place)
    end
  end
end)

-- task, lease, bytes, answer. The lease is the one that led to `Publish`: whoever was paused in
-- between and comes late is not believed.
function Q.published()
  local id, lease = arg(1), arg(2)
  local t = fetch(tk(id), 'st', 'at', 'pfe')
  if t.at ~= lease then return end
  if t.st == 'F' then return Q.state(id) end
  if t.st ~= 'P' then return end
  call('SREM', P .. ':fp:' .. t.pfe, id)
  call('HSET', tk(id), 'answer', arg(4))
  Q.finish(id, 'Published', enc({}), tonumber(arg(3)))
end

-- What a record of the run needs: the job, times, the worker, and the requests but the first.
function Q.run_of(id)
  local t = fetch(tk(id), 'job', 'qat', 'lat', 'wname', 'attempts', 'nreq', 'ncan')
  local count = tonumber(t.nreq)
  local run = { t.job, t.qat, t.lat or '0', t.wname or '', t.attempts, flags(id, count, 'x', t.ncan) }
  for i = 1, count - 1 do run[#run + 1] = call('HGET', tk(id), 'r' .. i) end
  return enc(run)
end

local ENDED = {
  Published = 'published', Cancelled = 'cancelled', NobodyWaits = 'abandoned',
  Unsatisfiable = 'unsatisfiable', WorkersPaused = 'unsatisfiable', RetriesExhausted = 'retries_exhausted', Poison = 'poisoned',
}

function Q.finish(id, ending, detail, bytes)
  local t = fetch(tk(id), 'st', 'key', 'inv', 'lane', 'lat', 'wname', 'attempts', 'answer',
    'abandon', 'elsewhere')
  if t.st == 'W' then Q.dequeue(id) end
  if t.elsewhere then Q.stop_going_elsewhere(id) end
  if t.abandon then drop_timer('d', id) end
  if t.st == 'D' then
    bump('delayed', -1)
    Q.count_queued(t.inv, -1)
    drop_timer('c', id)
  end
  if call('HGET', P .. ':k', t.key) == id then call('HDEL', P .. ':k', t.key) end
  Q.forget_invocation(t.inv)
  Q.unrefer_lane(t.lane)
  bump('c.' .. ENDED[ending])
  call('HSET', tk(id), 'st', 'F', 'ending', ending, 'detail', detail)
  emit('Finished', id, ending, detail, Q.run_of(id))
  local frontends = waiters(id)
  tell_all(frontends, 'Ended', id, ending, detail, t.lat or '0', t.wname or '', t.attempts,
    t.answer or '')
  for _, frontend in ipairs(frontends) do call('SREM', P .. ':fw:' .. frontend, id) end
  call('DEL', P .. ':tw:' .. id)
  Q.keep(id, bytes)
end

function Q.keep(id, bytes)
  local list = P .. ':fin'
  local count = call('RPUSH', list, id .. ':' .. int(bytes) .. ':' .. int(now))
  if count == 1 then set_timer(now + limit('completed_ttl'), 'f', '') end
  local all = bump('finished_bytes', bytes)
  while true do
    if count <= limit('max_completed') and (all <= limit('max_completed_bytes') or count <= 1) then return end
    all, count = Q.forget_first(), count - 1
  end
end

-- Returns how many bytes of answers are left.
function Q.forget_first()
  local first = call('LPOP', P .. ':fin')
  local id, bytes = string.match(first, '^(%d+):(%d+):')
  call('DEL', tk(id))
  call('ZREM', P .. ':tasks', id)
  emit('Forgotten', id)
  return bump('finished_bytes', 0 - tonumber(bytes))
end

function Q.forget_finished()
  while true do
    local first = call('LINDEX', P .. ':fin', 0)
    if not first then return end
    local due = tonumber(string.match(first, ':(%d+)$')) + limit('completed_ttl')
    if due > now then return set_timer(due, 'f', '') end
    Q.forget_first()
  end
end
