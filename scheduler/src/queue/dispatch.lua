-- Which task goes to which worker.

-- Gives waiting tasks of the lane to free workers.
function Q.dispatch_lane(lane)
  -- Whoever was held back, in whatever lane, has its turn in `dispatch_freed`.
  while not freed do
    local found, worker = Q.next_pair(lane)
    if not found then return end
    Q.dequeue(found.task)
    Q.assign(found.task, worker)
  end
end

-- A waiting task of the lane with its turn, and the free worker that should run it.
function Q.next_pair(lane)
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

-- Fills the free slots of the worker.
function Q.dispatch_worker(worker)
  while true do
    local task = Q.next_task(worker)
    if not task then return end
    Q.dequeue(task)
    Q.assign(task, worker)
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
        local found, worker = Q.next_pair(lane)
        if found and (not best or Q.is_before(found, best)) then best, its_worker = found, worker end
      end
      if not best then return end
      Q.dequeue(best.task)
      Q.assign(best.task, its_worker)
    end
  end
end)

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
  Q.refer_invocation_again(t.inv)
  Q.count_running(t.inv, 1)
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
