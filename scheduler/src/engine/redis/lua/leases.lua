-- Workers and the leases they hold: see scheduler/src/queue/leases.rs.

local MAX_OMITTED = 2

local function lk(id) return P .. ':l:' .. id end

rarely(function()
  -- worker ('' draws one), name, slots, offer, what people want to know of it, why it takes nothing
  -- for now, leases...
  function Q.joined()
    local worker, name, slots = arg(1), arg(2), tonumber(arg(3))
    if worker == '' then worker = next_id('next_worker') end
    local old, kept = call('HGET', P .. ':wn', name), {}
    if old then
      local held, count = {}, 0
      for _, lease in ipairs(args(7)) do
        if call('ZSCORE', P .. ':wl:' .. old, lease) then held[#held + 1] = lease end
      end
      table.sort(held)
      for _, lease in ipairs(held) do
        if not kept[lease] and count < slots then
          kept[lease] = true
          count = count + 1
        end
      end
      tell(call('HGET', P .. ':wk:' .. old, 'fe'), 'CloseWorker', old, 'Replaced')
      emit('CloseWorker', old, 'Replaced')
      Q.lose_worker(old, kept)
    end
    bump('c.workers_joined')
    Q.worker_joins(worker, name, slots, arg(4), arg(5), arg(6))
    set_timer(now + limit('heartbeat_timeout'), 'a', worker)
    emit('Joined', worker)
    for _, lease in ipairs(args(7)) do
      if kept[lease] then Q.adopt(worker, lease) else Q.stray(worker, lease) end
    end
    Q.dispatch_worker(worker)
  end

  function Q.adopt(worker, id)
    local lease = fetch(lk(id), 'worker', 'task', 'attempt')
    if lease.worker == worker then return end
    call('HSET', lk(id), 'worker', worker, 'omitted', 0)
    Q.occupy(worker, id)
    local t = lease.task ~= '' and fetch(tk(lease.task), 'job', 'qat', 'lat', 'wname')
      or { job = '', qat = '0', lat = '0', wname = '' }
    emit('Adopted', worker, id, lease.task, lease.attempt, t.job, t.qat, t.lat, t.wname)
    if lease.task == '' then emit('CancelLease', worker, id, 'Cancelled') end
  end

  -- The worker holds a lease that it should not: its slot is taken until it gives that back.
  function Q.stray(worker, lease)
    if Q.add_stray(worker, lease) then
      set_timer(now + limit('cancel_timeout'), 'h', worker .. lease)
      emit('CancelLease', worker, lease, 'Unknown')
    end
  end

  -- False: it was no stray.
  function Q.drop_stray(worker, lease)
    if not Q.remove_stray(worker, lease) then return false end
    drop_timer('h', worker .. lease)
    return true
  end

  function Q.stray_expired(both)
    local worker, lease = string.sub(both, 1, 16), string.sub(both, 17)
    if Q.remove_stray(worker, lease) then
      emit('CloseWorker', worker, 'DidNotCancel')
      tell(call('HGET', P .. ':wk:' .. worker, 'fe'), 'CloseWorker', worker, 'DidNotCancel')
      Q.lose_worker(worker, {})
    end
  end

  local function expect_workers(lanes)
    for _, lane in ipairs(lanes) do Q.expect_worker(lane) end
  end

  -- The worker says what it holds, and that is the truth: what it should not hold takes up slots
  -- (where it is `news`), and what it holds no more does not.
  function Q.holds(id, listed, news)
    for _, lease in ipairs(members(P .. ':ws:' .. id)) do
      if not listed[lease] then Q.drop_stray(id, lease) end
    end
    local new = {}
    for lease in pairs(listed) do
      if news and not call('ZSCORE', P .. ':wl:' .. id, lease) then new[#new + 1] = lease end
    end
    table.sort(new)
    for _, lease in ipairs(new) do Q.stray(id, lease) end
  end

  -- worker, why it takes nothing ('': it takes tasks again)
  function Q.pause()
    Q.seen(arg(1))
    expect_workers(Q.worker_pauses(arg(1), arg(2)))
    Q.dispatch_worker(arg(1))
  end

  -- workers
  function Q.draining()
    for _, id in ipairs(args(1)) do
      Q.seen(id)
      if call('EXISTS', P .. ':wk:' .. id) == 1 then expect_workers(Q.worker_drains(id)) end
    end
  end

  -- name
  function Q.drain_worker()
    local id = call('HGET', P .. ':wn', arg(1))
    if not id then return end
    expect_workers(Q.worker_drains(id))
    emit('Drain', id)
    tell(call('HGET', P .. ':wk:' .. id, 'fe'), 'Drain', id)
  end

  -- Everything that the worker ran goes back to the queue, but for the leases `kept`.
  function Q.lose_worker(id, kept)
    local name, leases, unserved = Q.worker_leaves(id)
    if not name then return end
    local lost = {}
    for _, lease in ipairs(leases) do
      if not kept[lease] then lost[#lost + 1] = lease end
    end
    if #lost > 0 then bump('c.workers_lost') end
    drop_timer('a', id)
    expect_workers(unserved)
    for _, id in ipairs(lost) do
      local lease = Q.remove_lease(id)
      if lease and lease.task ~= '' then
        local key = tk(lease.task)
        if call('EXISTS', key) == 1 then
          call('HINCRBY', key, 'kills', 1)
          call('HSET', key, 'killed', (call('HGET', key, 'killed') or '') .. #name .. ':' .. name)
        end
        Q.run_again(lease.task, 'worker ' .. name .. ' was lost', '')
      end
    end
  end

  -- worker
  function Q.left() Q.lose_worker(arg(1), {}) end
end)

function Q.seen(id)
  if call('EXISTS', P .. ':wk:' .. id) == 1 then call('HSET', P .. ':wk:' .. id, 'seen', now) end
end

rarely(function()
  -- Nobody could speak for so long that silence says nothing: Redis was away, or all frontends.
  local function all_were_cut_off()
    local beat = tonumber(call('HGET', M, 'beat') or now)
    return now - beat > limit('heartbeat_timeout') / 2
  end

  -- The timer of a worker that spoke meanwhile is set anew only when it fires.
  function Q.check_silence(id)
    local worker = fetch(P .. ':wk:' .. id, 'seen', 'fe')
    if not worker.seen then return end
    if all_were_cut_off() then return set_timer(now + limit('heartbeat_timeout'), 'a', id) end
    local silent_at = tonumber(worker.seen) + limit('heartbeat_timeout')
    if silent_at > now then return set_timer(silent_at, 'a', id) end
    emit('CloseWorker', id, 'Silent')
    tell(worker.fe, 'CloseWorker', id, 'Silent')
    Q.lose_worker(id, {})
  end

  local function heartbeat(id, listed, news)
    Q.seen(id)
    local name = call('HGET', P .. ':wk:' .. id, 'name')
    if not name then return false end
    Q.holds(id, listed, news)
    local lost = {}
    for _, lease in ipairs(call('ZRANGE', P .. ':wl:' .. id, 0, -1)) do
      local omitted = call('HGET', lk(lease), 'omitted')
      if listed[lease] then
        if omitted ~= '0' then call('HSET', lk(lease), 'omitted', 0) end
      elseif call('HINCRBY', lk(lease), 'omitted', 1) >= MAX_OMITTED then
        lost[#lost + 1] = lease
      end
    end
    for _, lease in ipairs(lost) do
      Q.failed_lease(id, lease, 'worker ' .. name .. ' does not know of its lease any more')
    end
    Q.dispatch_worker(id)
    return true
  end

  -- For each worker of this frontend, from an argument on: worker, number of leases, leases... `news`: whether all that
  -- the workers said before is known here. Returns the workers that have no session.
  local function heartbeats(first, news)
    local i, unknown = first, {}
    while arg(i) do
      local count, listed = tonumber(arg(i + 1)), {}
      for k = i + 2, i + 1 + count do listed[arg(k)] = true end
      if not heartbeat(arg(i), listed, news) then unknown[#unknown + 1] = arg(i) end
      i = i + 2 + count
    end
    return unknown
  end

  function Q.heartbeat() heartbeats(1, true) end

  -- What this frontend makes names of leases with (all must use what the first one drew), then
  -- like heartbeat, of some time ago; says as well that this frontend is alive. It may have been taken for lost
  -- without hearing of it: then it is told so, and which of its sessions are over.
  function Q.beat()
    call('HSET', M, 'beat', int(now))
    if call('HSETNX', M, 'secret', arg(1)) == 0 then
      local secret = call('HGET', M, 'secret')
      if secret ~= arg(1) then emit('Secret', secret) end
    end
    if call('HSET', P .. ':fe', me, now) == 1 then emit('Lapsed') end
    if not call('ZSCORE', T, 'g' .. me) then set_timer(now + limit('heartbeat_timeout'), 'g', me) end
    for _, worker in ipairs(heartbeats(2, false)) do emit('CloseWorker', worker, 'Silent') end
  end

  function Q.check_frontend(id)
    local seen = call('HGET', P .. ':fe', id)
    if not seen then return end
    if id == me or all_were_cut_off() then
      return set_timer(now + limit('heartbeat_timeout'), 'g', id)
    end
    local silent_at = tonumber(seen) + limit('heartbeat_timeout')
    if silent_at > now then return set_timer(silent_at, 'g', id) end
    call('HDEL', P .. ':fe', id)
    for _, task in ipairs(members(P .. ':fw:' .. id)) do
      local count = tonumber(call('HGET', P .. ':tw:' .. task, id) or 0)
      call('HDEL', P .. ':tw:' .. task, id)
      Q.waiters_left(task, count)
    end
    for _, task in ipairs(members(P .. ':fp:' .. id)) do
      local t = task_of(task)
      if t and t.st == 'P' then
        Q.run_again(task, 'the server that published its answer was lost', '')
      end
    end
    call('DEL', P .. ':fw:' .. id, P .. ':fp:' .. id)
  end

  -- Tasks that this frontend is publishing. Of another one that should be, the end was lost with a
  -- failure of Redis.
  function Q.publishes()
    local known = {}
    for _, task in ipairs(args(1)) do known[task] = true end
    for _, task in ipairs(members(P .. ':fp:' .. me)) do
      if not known[task] then
        call('SREM', P .. ':fp:' .. me, task)
        local t = task_of(task)
        if t and t.st == 'P' then Q.run_again(task, 'the publication of its answer was lost', '') end
      end
    end
  end

  -- worker, lease, whether outputs are being uploaded
  function Q.progress()
    local worker, id = arg(1), arg(2)
    Q.seen(worker)
    local lease = fetch(lk(id), 'worker', 'task')
    if lease.worker ~= worker or lease.task == '' then return end
    local timeout = tonumber(call('HGET', tk(lease.task), 'timeout'))
    set_timer(now + (arg(3) == '1' and 0 or timeout) + limit('lease_slack'), 'b', id)
  end
end)

-- worker, lease, task (may be empty)
function Q.completed()
  local worker, id = arg(1), arg(2)
  local again = arg(3) ~= '' and fetch(tk(arg(3)), 'st', 'at', 'pfe', 'attempts')
  if again and again.st == 'P' and again.at == id and again.pfe == me then
    -- The answer to the first call was lost on its way.
    return emit('Publish', arg(3), id, worker, again.attempts)
  end
  local lease = Q.give_back(worker, id)
  if not lease then return Q.seen(worker) end
  call('HSET', P .. ':wk:' .. worker, 'seen', now)
  local t = lease.task ~= '' and task_of(lease.task)
  if t then
    call('HSET', tk(lease.task), 'st', 'P', 'at', id, 'pfe', me)
    call('SADD', P .. ':fp:' .. me, lease.task)
    emit('Publish', lease.task, id, worker, lease.attempt)
  else
    bump('c.stale_results')
    emit('Stale', id)
  end
  Q.dispatch_worker(worker)
end

rarely(function()
  function Q.failed_lease(worker, id, message)
    Q.seen(worker)
    local lease = Q.give_back(worker, id)
    if not lease then return end
    if lease.task ~= '' then Q.run_again(lease.task, message, worker) end
    Q.dispatch_worker(worker)
  end

  -- worker, lease, message
  function Q.failed() Q.failed_lease(arg(1), arg(2), arg(3)) end

  -- The task's latest run was none. False: that happened too often.
  local function uncount_run(id)
    local t = task_of(id, 'returns')
    if not t or tonumber(t.returns or 0) >= limit('max_returns') then return false end
    call('HINCRBY', tk(id), 'returns', 1)
    call('HINCRBY', tk(id), 'attempts', -1)
    call('HSET', tk(id), 'avoid', '')
    bump('c.returned')
    return true
  end

  -- worker, lease, message. The worker drains and has no more time for it. Of a worker that is not
  -- known to drain, this is a failure like any other.
  function Q.returned()
    local worker, id, message = arg(1), arg(2), arg(3)
    Q.seen(worker)
    local drains = (call('HGET', P .. ':wk:' .. worker, 'draining') or '0') ~= '0'
    local lease = Q.give_back(worker, id)
    if not lease then return end
    if lease.task ~= '' then
      if drains and uncount_run(lease.task) then
        emit('Requeued', lease.task, 1)
        tell_waiters(lease.task, 'Requeued', lease.task)
        Q.enqueue(lease.task, place_of(lease.task))
      else
        Q.run_again(lease.task, message, worker)
      end
    end
    Q.dispatch_worker(worker)
  end

  -- worker, lease, message, leases that it holds instead... The worker has no room for it, which is
  -- no fault of the action's.
  function Q.refused()
    local worker, id, message = arg(1), arg(2), arg(3)
    Q.seen(worker)
    local lease, listed = Q.give_back(worker, id), {}
    for _, held in ipairs(args(4)) do listed[held] = true end
    if call('EXISTS', P .. ':wk:' .. worker) == 1 then Q.holds(worker, listed, true) end
    if lease and lease.task ~= '' then
      bump('c.leases_refused')
      if uncount_run(lease.task) then
        emit('Requeued', lease.task, 0)
        tell_waiters(lease.task, 'Requeued', lease.task)
        Q.put_off(lease.task, call('HGET', tk(lease.task), 'returns'), worker)
      else
        Q.run_again(lease.task, message, worker)
      end
    end
    Q.dispatch_worker(worker)
  end
end)

-- Frees the slot of a lease that this worker holds.
function Q.give_back(worker, id)
  local lease = fetch(lk(id), 'task', 'worker', 'lane', 'inv', 'attempt')
  if lease.worker ~= worker then
    bump('c.stale_results')
    emit('Stale', id)
    if Q.drop_stray(worker, id) then Q.dispatch_worker(worker) end
    return nil
  end
  return Q.remove_lease(id, lease)
end

function Q.remove_lease(id, lease)
  lease = lease or fetch(lk(id), 'task', 'worker', 'lane', 'inv', 'attempt')
  if not lease.worker then return nil end
  call('DEL', lk(id))
  Q.vacate(lease.worker, id)
  Q.unrefer_lane(lease.lane)
  Q.stopped(lease.inv)
  Q.forget_invocation(lease.inv)
  drop_timer('b', id)
  return lease
end

rarely(function()
  -- After a run that says nothing about the action: again, or the end. `failed_on`: a worker
  -- that still lives, and that another one is preferred to.
  function Q.run_again(id, message, failed_on)
    local t = task_of(id, 'kills', 'killed', 'attempts')
    if not t then return end
    if tonumber(t.kills) >= limit('poison_kills') then
      return Q.finish(id, 'Poison', t.kills .. ';' .. t.killed, 0)
    end
    if tonumber(t.attempts) > limit('max_retries') then
      return Q.finish(id, 'RetriesExhausted', enc({ t.attempts, message }), 0)
    end
    bump('c.retries')
    local at_once = failed_on == '' and 1 or 0
    emit('Requeued', id, at_once)
    tell_waiters(id, 'Requeued', id)
    if at_once == 0 then return Q.put_off(id, t.attempts, failed_on) end
    call('HSET', tk(id), 'avoid', '')
    Q.enqueue(id, place_of(id))
  end

  -- The task waits, the longer the more often it did, and then for some time for another worker
  -- that could run it.
  function Q.put_off(id, times, avoid)
    local until_ = now + tonumber(times) * limit('retry_delay')
    call('HSET', tk(id), 'avoid', avoid, 'st', 'D', 'at', until_)
    bump('delayed')
    local t = fetch(tk(id), 'lane', 'inv')
    Q.count_queued(t.inv, 1)
    set_timer(until_, 'c', id)
    if Q.has_other_taker(t.lane, avoid) then
      call('HSET', tk(id), 'elsewhere', 1)
      call('SADD', P .. ':else', id)
      set_timer(until_ + limit('elsewhere_wait'), 'i', id)
    end
  end

  -- The task may go to any worker.
  function Q.anywhere(id)
    call('SREM', P .. ':else', id)
    local t = task_of(id, 'lane')
    if not t then return end
    call('HDEL', tk(id), 'elsewhere')
    if t.st == 'W' then Q.dispatch_lane(t.lane) end
  end

  function Q.stop_going_elsewhere(id)
    call('SREM', P .. ':else', id)
    call('HDEL', tk(id), 'elsewhere')
    drop_timer('i', id)
  end

  function Q.lease_expired(id)
    local lease = fetch(lk(id), 'worker', 'task')
    if not lease.worker then return end
    local worker = fetch(P .. ':wk:' .. lease.worker, 'name', 'fe')
    if lease.task == '' then
      emit('CloseWorker', lease.worker, 'DidNotCancel')
      tell(worker.fe, 'CloseWorker', lease.worker, 'DidNotCancel')
      return Q.lose_worker(lease.worker, {})
    end
    bump('c.leases_expired')
    Q.revoke(id, 'LeaseExpired')
    local name = worker.name or ''
    Q.run_again(lease.task, 'worker ' .. name .. ' gave no answer before its lease ran out',
      lease.worker)
  end

  -- From here on the lease's result is not wanted; its slot is still taken.
  function Q.revoke(id, reason)
    local worker = call('HGET', lk(id), 'worker')
    call('HSET', lk(id), 'task', '')
    set_timer(now + limit('cancel_timeout'), 'b', id)
    emit('CancelLease', worker, id, reason)
    tell(call('HGET', P .. ':wk:' .. worker, 'fe'), 'CancelLease', worker, id, reason)
  end
end)

-- A waiting task of the lane with its turn, and the free worker that should run it.
local function next_pair(lane)
  local found, worker
  local function try(candidate)
    local t = fetch(tk(candidate.task), 'avoid', 'elsewhere')
    worker = Q.free_worker(lane, t.avoid, t.elsewhere)
    if worker then found = candidate end
    -- Another task may go where this one may not.
    return worker or not t.elsewhere
  end
  local head = not Q.some_run_quota() and Q.head(lane)
  if Q.some_run_quota() or head and not try(head) then Q.in_turn(lane, try) end
  return found, worker
end

-- Gives waiting tasks of the lane to free workers.
function Q.dispatch_lane(lane)
  -- Whoever was held back, in whatever lane, has its turn in `dispatch_freed`.
  while not freed do
    local found, worker = next_pair(lane)
    if not found then return end
    Q.dequeue(found.task)
    Q.assign(found.task, worker)
  end
end

rarely(function()
  -- Whoever was held back by a quota, whatever its tasks require, may run more.
  function Q.dispatch_freed()
    local lanes = {}
    for _, lane in ipairs(registered(P .. ':lanes')) do
      if call('EXISTS', P .. ':ls:' .. lane.id) == 1 then lanes[#lanes + 1] = lane.id end
    end
    while true do
      local best, its_worker
      for _, lane in ipairs(lanes) do
        local found, worker = next_pair(lane)
        if found and (not best or Q.is_before(found, best)) then best, its_worker = found, worker end
      end
      if not best then return end
      Q.dequeue(best.task)
      Q.assign(best.task, its_worker)
    end
  end
end)

-- Fills the free slots of the worker.
function Q.dispatch_worker(worker)
  while true do
    local task = Q.next_task(worker)
    if not task then return end
    Q.dequeue(task)
    Q.assign(task, worker)
  end
end

-- The task stands in no queue.
function Q.assign(id, worker)
  local lease = next_id('next_lease')
  local attempt = call('HINCRBY', tk(id), 'attempts', 1)
  local w = fetch(P .. ':wk:' .. worker, 'name', 'fe')
  local t = fetch(tk(id), 'lane', 'inv', 'timeout', 'job', 'qat', 'carried', 'elsewhere')
  if t.carried then call('HDEL', tk(id), 'carried') end
  if t.elsewhere then Q.stop_going_elsewhere(id) end
  call('HSET', tk(id), 'st', 'L', 'at', lease, 'lat', now, 'wname', w.name)
  call('HSET', lk(lease), 'task', id, 'worker', worker, 'lane', t.lane, 'inv', t.inv,
    'started', now, 'omitted', 0, 'attempt', attempt)
  bump('c.dispatched')
  Q.occupy(worker, lease)
  Q.refer_lane_again(t.lane)
  call('HINCRBY', P .. ':inv:' .. t.inv, 'refs', 1)
  Q.started(t.inv)
  set_timer(now + tonumber(t.timeout) + limit('lease_slack'), 'b', lease)
  -- Who does not have the worker needs no more than to know.
  local mine = w.fe == me
  local job, carried = t.job, t.carried or ''
  emit('Assign', worker, lease, id, attempt, mine and job or '', t.qat, now, w.name,
    mine and carried or '')
  tell(w.fe, 'Assign', worker, lease, id, attempt, job, t.qat, now, w.name, carried)
  tell_waiters(id, 'Leased', id, attempt, now, w.name)
end
