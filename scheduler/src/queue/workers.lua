-- Workers: their sessions, what they hold, and when they are lost.

local MAX_OMITTED = 2

local function lk(id) return P .. ':l:' .. id end

rarely(function()
  -- `worker`: '' draws one. `info`: what people want to know of it. `paused`: why it takes nothing.
  function Q.worker_joined(worker, name, slots, offer, info, paused, listed)
    if worker == '' then worker = next_id('next_worker') end
    local kept = Q.replace(name, slots, listed)
    bump('c.workers_joined')
    Q.worker_joins(worker, name, slots, offer, info, paused)
    set_timer(now + limit('heartbeat_timeout'), 'a', worker)
    emit('Joined', worker)
    for _, lease in ipairs(listed) do
      if kept[lease] then Q.adopt(worker, lease) else Q.stray(worker, lease) end
    end
    Q.dispatch_worker(worker)
  end

  -- Ends an earlier session of this worker. Returns the leases that go over to the new one.
  function Q.replace(name, slots, listed)
    local old, kept = call('HGET', P .. ':wn', name), {}
    if not old then return kept end
    local held, count = {}, 0
    for _, lease in ipairs(listed) do
      if call('ZSCORE', P .. ':wl:' .. old, lease) then held[#held + 1] = lease end
    end
    table.sort(held)
    for _, lease in ipairs(held) do
      if not kept[lease] and count < slots then
        kept[lease] = true
        count = count + 1
      end
    end
    Q.close_worker(old, 'Replaced')
    Q.lose_worker(old, kept)
    return kept
  end

  function Q.adopt(worker, id)
    local lease = fetch(lk(id), 'worker', 'task', 'attempt')
    -- Listed twice.
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
      Q.close_worker(worker, 'DidNotCancel')
      Q.worker_lost(worker)
    end
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

  -- `reason`: ''  where it takes tasks again.
  function Q.worker_paused(id, reason)
    Q.seen(id)
    Q.expect_workers(Q.worker_pauses(id, reason))
    Q.dispatch_worker(id)
  end

  function Q.worker_draining(id)
    Q.seen(id)
    if call('EXISTS', P .. ':wk:' .. id) == 1 then Q.expect_workers(Q.worker_drains(id)) end
  end

  function Q.expect_workers(lanes)
    for _, lane in ipairs(lanes) do Q.expect_worker(lane) end
  end

  -- Everything that the worker ran goes back to the queue.
  function Q.worker_lost(id) Q.lose_worker(id, {}) end

  -- The same, but for the leases `kept`.
  function Q.lose_worker(id, kept)
    local name, leases, unserved = Q.worker_leaves(id)
    if not name then return end
    local lost = {}
    for _, lease in ipairs(leases) do
      if not kept[lease] then lost[#lost + 1] = lease end
    end
    if #lost > 0 then bump('c.workers_lost') end
    drop_timer('a', id)
    Q.expect_workers(unserved)
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
end)

function Q.seen(id)
  if call('EXISTS', P .. ':wk:' .. id) == 1 then call('HSET', P .. ':wk:' .. id, 'seen', now) end
end

rarely(function()
  -- The timer of a worker that spoke meanwhile is set anew only when it fires.
  function Q.check_silence(id)
    local seen = call('HGET', P .. ':wk:' .. id, 'seen')
    if not seen then return end
    if Q.all_were_cut_off() then return set_timer(now + limit('heartbeat_timeout'), 'a', id) end
    local silent_at = tonumber(seen) + limit('heartbeat_timeout')
    if silent_at > now then return set_timer(silent_at, 'a', id) end
    Q.close_worker(id, 'Silent')
    Q.worker_lost(id)
  end

  -- `news`: all that the worker said before is known here. False: it has no session.
  function Q.heartbeat(id, listed, news)
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
      Q.failed(id, lease, 'worker ' .. name .. ' does not know of its lease any more')
    end
    Q.dispatch_worker(id)
    return true
  end
end)
