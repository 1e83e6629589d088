-- Leases: how they end, and what becomes of their tasks then.

rarely(function()
  -- `uploads`: outputs are being uploaded.
  function Q.progress(worker, id, uploads)
    Q.seen(worker)
    local lease = fetch(lk(id), 'worker', 'task')
    if lease.worker ~= worker or lease.task == '' then return end
    local timeout = tonumber(call('HGET', tk(lease.task), 'timeout'))
    set_timer(now + (uploads and 0 or timeout) + limit('lease_slack'), 'b', id)
  end
end)

-- `task`: '' where the frontend does not know it.
function Q.completed(worker, id, task)
  local again = task ~= '' and fetch(tk(task), 'st', 'at', 'pfe', 'attempts')
  if again and again.st == 'P' and again.at == id and again.pfe == me then
    -- The answer to the first call was lost on its way.
    return emit('Publish', task, id, worker, again.attempts)
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
  function Q.failed(worker, id, message)
    Q.seen(worker)
    local lease = Q.give_back(worker, id)
    if not lease then return end
    if lease.task ~= '' then Q.run_again(lease.task, message, worker) end
    Q.dispatch_worker(worker)
  end

  -- The worker drains and has no more time for it. Of a worker that is not known to drain, this is a
  -- failure like any other.
  function Q.returned(worker, id, message)
    Q.seen(worker)
    local drains = (call('HGET', P .. ':wk:' .. worker, 'draining') or '0') ~= '0'
    local lease = Q.give_back(worker, id)
    if not lease then return end
    if lease.task ~= '' then
      if drains and Q.uncount_run(lease.task) then
        Q.requeued(lease.task, 1)
        Q.enqueue(lease.task, place(lease.task))
      else
        Q.run_again(lease.task, message, worker)
      end
    end
    Q.dispatch_worker(worker)
  end

  -- The worker has no room for it, which is no fault of the action's.
  function Q.refused(worker, id, message, listed)
    Q.seen(worker)
    local lease = Q.give_back(worker, id)
    if call('EXISTS', P .. ':wk:' .. worker) == 1 then Q.holds(worker, listed, true) end
    if lease and lease.task ~= '' then
      bump('c.leases_refused')
      if Q.uncount_run(lease.task) then
        Q.requeued(lease.task, 0)
        Q.put_off(lease.task, call('HGET', tk(lease.task), 'returns'), worker)
      else
        Q.run_again(lease.task, message, worker)
      end
    end
    Q.dispatch_worker(worker)
  end

  -- The task's latest run was none. False: that happened too often.
  function Q.uncount_run(id)
    local t = task_of(id, 'returns')
    if not t or tonumber(t.returns or 0) >= limit('max_returns') then return false end
    call('HINCRBY', tk(id), 'returns', 1)
    call('HINCRBY', tk(id), 'attempts', -1)
    call('HSET', tk(id), 'avoid', '')
    bump('c.returned')
    return true
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
  Q.count_running(lease.inv, -1)
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
    Q.requeued(id, failed_on == '' and 1 or 0)
    if failed_on ~= '' then return Q.put_off(id, t.attempts, failed_on) end
    call('HSET', tk(id), 'avoid', '')
    Q.enqueue(id, place(id))
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
    local worker = lease.worker
    if lease.task == '' then
      Q.close_worker(worker, 'DidNotCancel')
      return Q.worker_lost(worker)
    end
    bump('c.leases_expired')
    Q.revoke(id, 'LeaseExpired')
    local name = call('HGET', P .. ':wk:' .. worker, 'name') or ''
    Q.run_again(lease.task, 'worker ' .. name .. ' gave no answer before its lease ran out', worker)
  end

  -- From here on the lease's result is not wanted; its slot is still taken.
  function Q.revoke(id, reason)
    local worker = call('HGET', lk(id), 'worker')
    call('HSET', lk(id), 'task', '')
    set_timer(now + limit('cancel_timeout'), 'b', id)
    emit('CancelLease', worker, id, reason)
    tell(Q.frontend_of(worker), 'CancelLease', worker, id, reason)
  end
end)
