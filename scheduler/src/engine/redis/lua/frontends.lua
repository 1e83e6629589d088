-- The engine's own: frontends that are lost or come back, and what they ask.

rarely(function()
  -- What this frontend makes names of leases with (all must use what the first one drew), then what
  -- its workers said some time ago; says as well that this frontend is alive. It may have been taken
  -- for lost without hearing of it: then it is told so, and which of its sessions are over.
  function Q.beat(secret)
    call('HSET', M, 'beat', int(now))
    if call('HSETNX', M, 'secret', secret) == 0 then
      local first = call('HGET', M, 'secret')
      if first ~= secret then emit('Secret', first) end
    end
    if call('HSET', P .. ':fe', me, now) == 1 then emit('Lapsed') end
    if not call('ZSCORE', T, 'g' .. me) then set_timer(now + limit('heartbeat_timeout'), 'g', me) end
    for _, worker in ipairs(Q.heartbeats(2, false)) do emit('CloseWorker', worker, 'Silent') end
  end

  -- For each worker of this frontend, from an argument on: worker, number of leases, leases...
  -- Returns the workers that have no session.
  function Q.heartbeats(first, news)
    local i, unknown = first, {}
    while arg(i) do
      local count, listed = tonumber(arg(i + 1)), {}
      for k = i + 2, i + 1 + count do listed[arg(k)] = true end
      if not Q.heartbeat(arg(i), listed, news) then unknown[#unknown + 1] = arg(i) end
      i = i + 2 + count
    end
    return unknown
  end

  function Q.check_frontend(id)
    local seen = call('HGET', P .. ':fe', id)
    if not seen then return end
    if id == me or Q.all_were_cut_off() then
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
  function Q.publishes(tasks)
    local known = {}
    for _, task in ipairs(tasks) do known[task] = true end
    for _, task in ipairs(members(P .. ':fp:' .. me)) do
      if not known[task] then
        call('SREM', P .. ':fp:' .. me, task)
        local t = task_of(task)
        if t and t.st == 'P' then Q.run_again(task, 'the publication of its answer was lost', '') end
      end
    end
  end

  -- What this frontend waits for, as task and count. Less may be known: the frontend was taken for
  -- lost, or Redis failed.
  function Q.waits(told)
    local counts = {}
    for i = 1, #told, 2 do
      local id, count = told[i], tonumber(told[i + 1])
      counts[id] = count
      local more = count - tonumber(call('HGET', P .. ':tw:' .. id, me) or 0)
      if more > 0 and task_of(id) then
        call('HINCRBY', tk(id), 'waiters', more)
        count_waiter(id, more)
        Q.stop_abandoning(id)
      end
    end
    return counts
  end

  -- The same, and what is not named is waited for no more.
  function Q.waits_only(told)
    local counts = Q.waits(told)
    for _, id in ipairs(members(P .. ':fw:' .. me)) do
      local known = tonumber(call('HGET', P .. ':tw:' .. id, me) or 0)
      local gone = known - (counts[id] or 0)
      if gone > 0 and task_of(id) then
        count_waiter(id, -gone)
        Q.waiters_left(id, gone)
      end
    end
  end

  -- An operator drains the worker of this name.
  function Q.drain_worker(name)
    local id = call('HGET', P .. ':wn', name)
    if not id then return end
    Q.expect_workers(Q.worker_drains(id))
    emit('Drain', id)
    tell(Q.frontend_of(id), 'Drain', id)
  end

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

  -- `count` tasks at most, `from` one on ('': the first).
  function Q.page(from, count)
    from = from == '' and '-' or '[' .. from
    local tasks = call('ZRANGEBYLEX', P .. ':tasks', from, '+', 'LIMIT', 0, count)
    for _, id in ipairs(tasks) do Q.state(id) end
  end

  -- The client of a request is not interested in it any more.
  function Q.forget(id, request)
    if call('EXISTS', tk(id)) == 1 then call('HSET', tk(id), 'g' .. request, 1, 'nfor', 1) end
  end
end)
