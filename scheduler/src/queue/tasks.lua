-- Life of a task but for its leases and waiters: how it comes, waits and ends.
-- States: W waits, D is delayed after a failure, L leased, P its answer is made durable,
-- F finished and kept for a while.

local MAX_UNSATISFIABLE_AT_ONCE = 1000
-- Tasks that wait at most for what goes with leases to be kept: with 16 KiB each, 160 MiB.
local CARRIED_WHILE = 10000

local function queued()
  return call('ZCARD', P .. ':waiting') + tonumber(call('HGET', M, 'delayed') or 0)
end

function Q.submit(s)
  local known = Q.joinable(s)
  if known then return Q.merge(known, s) end
  local of = queued() >= limit('max_queued') and '' or Q.refuses(s)
  if of then return Q.refuse(of) end
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
  if s.alone ~= '1' then call('HSETNX', P .. ':k', s.key, id) end
  count_waiter(id, 1)
  emit('Accepted', id, 0, 0, 'W', now, '0', '', 0)
  Q.enqueue(id, { lane = lane, inv = inv, prio = s.prio, exp = s.exp, avoid = avoid }, true)
end

-- A task in flight that may answer this request as well.
function Q.joinable(s)
  local id = s.alone ~= '1' and call('HGET', P .. ':k', s.key)
  if not id then return nil end
  local t = task_of(id, 'nreq', 'skip')
  local room = t and tonumber(t.nreq) < limit('max_requests')
  return room and not (t.skip == '1' and s.skip == '1') and id
end

rarely(function()
  -- `of`: of whom too many wait; '': of all together.
  function Q.refuse(of)
    bump('c.refused')
    emit('Refused', of)
  end

  function Q.merge(id, s)
    local t = fetch(tk(id), 'st', 'nreq', 'waiters', 'prio', 'qat', 'lat', 'wname', 'attempts', 'job')
    bump('c.merged')
    local request = tonumber(t.nreq)
    call('HSET', tk(id), 'nreq', request + 1, 'waiters', t.waiters + 1, 'r' .. request, s.request,
      'w' .. request, 1)
    if s.skip == '1' then call('HSET', tk(id), 'skip', 1) end
    count_waiter(id, 1)
    emit('Accepted', id, request, 1, t.st, t.qat, t.lat or '0', t.wname or '', t.attempts, t.job)
    if tonumber(s.prio) < tonumber(t.prio) then
      local at = place(id)
      if t.st == 'W' then Q.remove(id, at) end
      call('HSET', tk(id), 'prio', s.prio)
      at.prio = s.prio
      if t.st == 'W' then Q.push(id, at) end
    end
    Q.stop_abandoning(id)
  end
end)

-- Waits for a worker from now on, or is given to one at once.
function Q.enqueue(id, at, is_new)
  local served = Q.is_served(at.lane)
  -- Where nobody waits the task would only come to stand there and leave again.
  if served and not freed and call('EXISTS', P .. ':lv:' .. at.lane) == 0
    and not Q.is_full(at.inv) then
    local t = is_new and {} or fetch(tk(id), 'avoid', 'elsewhere')
    local worker = Q.free_worker(at.lane, at.avoid or t.avoid, t.elsewhere)
    if worker then return Q.assign(id, worker) end
  end
  if not is_new then call('HSET', tk(id), 'st', 'W', 'at', now) end
  call('ZADD', P .. ':waiting', now, id)
  Q.count_queued(at.inv, 1)
  Q.push(id, at)
  Q.set_waiting(at.lane, now, id, true)
  if served then Q.dispatch_lane(at.lane) else Q.expect_worker(at.lane) end
end

-- Takes a task out of the waiting ones.
function Q.dequeue(id)
  if call('ZREM', P .. ':waiting', id) == 0 then return end
  local at = place(id)
  Q.remove(id, at)
  Q.count_queued(at.inv, -1)
  Q.set_waiting(at.lane, nil, id, false)
  if call('EXISTS', P .. ':ls:' .. at.lane) == 0 then Q.expect_no_worker(at.lane) end
end

function Q.expect_no_worker(lane) drop_timer('e', lane) end

rarely(function()
  -- No worker serves the lane: its tasks fail unless one comes in time.
  function Q.expect_worker(lane)
    local task, at = Q.waits_in_vain(lane)
    -- Not now: what is due already was left for another turn.
    if task then set_timer(math.max(at, now + 1), 'e', lane) else Q.expect_no_worker(lane) end
  end

  function Q.check_unsatisfiable(lane)
    local requirement = call('HGET', P .. ':lane:' .. lane, 'req')
    if not requirement or Q.is_served(lane) then return end
    local paused = Q.paused(lane)
    local ending = paused and 'WorkersPaused' or 'Unsatisfiable'
    local detail = enc(paused or { requirement, unpack(Q.offers()) })
    for _ = 1, MAX_UNSATISFIABLE_AT_ONCE do
      local task, at = Q.waits_in_vain(lane)
      if not task or at > now then break end
      Q.finish(task, ending, detail, 0)
    end
    Q.expect_worker(lane)
  end

  -- The task of the lane that has waited for a worker for longest, and when that is too long.
  function Q.waits_in_vain(lane)
    local first = call('ZRANGE', P .. ':ls:' .. lane, 0, 0, 'WITHSCORES')
    if not first[1] then return nil end
    local unserved = tonumber(call('HGET', P .. ':lane:' .. lane, 'unserved'))
    return first[1], math.max(unserved, tonumber(first[2])) + limit('unsatisfiable_grace')
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
      local at = place(id)
      Q.count_queued(at.inv, -1)
      Q.enqueue(id, at)
    end
  end
end)

-- The lease is the one that led to `Publish`: whoever was paused in between and comes late is not
-- believed. `insists`: it is told until an answer is heard, which has to say all.
function Q.published(id, lease, bytes, answer, insists)
  local t = fetch(tk(id), 'st', 'at', 'pfe', 'ending', 'detail')
  if t.at ~= lease then return end
  if t.st == 'F' and insists then return emit('Finished', id, t.ending, t.detail, record(id)) end
  if t.st == 'F' then return Q.state(id) end
  if t.st ~= 'P' then return end
  call('SREM', P .. ':fp:' .. t.pfe, id)
  call('HSET', tk(id), 'answer', answer)
  Q.finish(id, 'Published', enc({}), bytes)
end

local ENDED = {
  Published = 'published', Cancelled = 'cancelled', NobodyWaits = 'abandoned',
  Unsatisfiable = 'unsatisfiable', WorkersPaused = 'unsatisfiable',
  RetriesExhausted = 'retries_exhausted', Poison = 'poisoned',
}

function Q.finish(id, ending, detail, bytes)
  local t = fetch(tk(id), 'st', 'key', 'inv', 'lane', 'lat', 'wname', 'attempts', 'answer',
    'abandon', 'elsewhere')
  if t.st == 'W' then Q.dequeue(id) end
  if t.elsewhere then Q.stop_going_elsewhere(id) end
  if t.abandon then Q.stop_abandoning(id) end
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
  emit('Finished', id, ending, detail, record(id))
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
  while count > limit('max_completed') or all > limit('max_completed_bytes') and count > 1 do
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

-- There is one timer for all finished tasks, set to the oldest.
function Q.forget_finished()
  while true do
    local first = call('LINDEX', P .. ':fin', 0)
    if not first then return end
    local due = tonumber(string.match(first, ':(%d+)$')) + limit('completed_ttl')
    if due > now then return set_timer(due, 'f', '') end
    Q.forget_first()
  end
end
