-- Who waits for a task, and what becomes of it when nobody does.

rarely(function()
  -- The task's state follows.
  function Q.attach(id, request)
    local t = task_of(id, 'nreq')
    if t then
      call('HINCRBY', tk(id), 'waiters', 1)
      if tonumber(request) < tonumber(t.nreq) then call('HINCRBY', tk(id), 'w' .. request, 1) end
      count_waiter(id, 1)
      Q.stop_abandoning(id)
    end
    Q.state(id)
  end

  -- Returns how many wait for the request; nil where there is no such task.
  function Q.detach(id, request)
    local t = task_of(id, 'w' .. request)
    if not t then return nil end
    -- Of a frontend that was taken for lost meanwhile nobody is counted: it is others who wait.
    if count_waiter(id, -1) >= 0 then Q.waiters_left(id, 1) end
    local count = tonumber(t['w' .. request] or 0)
    if count == 0 then return 0 end
    return call('HINCRBY', tk(id), 'w' .. request, -1)
  end

  function Q.waiters_left(id, by)
    local t = task_of(id, 'waiters', 'abandon')
    if not t then return end
    local left = math.max(0, tonumber(t.waiters) - by)
    call('HSET', tk(id), 'waiters', left)
    if left == 0 and not t.abandon then
      call('HSET', tk(id), 'abandon', 1)
      set_timer(now + limit('abandon_grace'), 'd', id)
    end
  end

  -- Where nobody else waits there is nothing to wait for: the task ends now, or the request alone
  -- where the task goes on for others. `number`: as in `Q.cancel`. `again`: the answer to the first call was lost on
  -- its way; what was said once more of it.
  function Q.gave_up(id, request, number, again)
    local token = number and me .. ':' .. number
    if again then
      local was = fetch(tk(id), 'st', 'ending', 'detail', 'xby', 'x' .. request)
      local alone = was['x' .. request] == token
      local what = alone and id .. ':' .. request or id
      if again[what] then return end
      again[what] = true
      if alone then return emit('RequestCancelled', id, request, record(id)) end
      if was.st == 'F' and was.xby == token then
        emit('Finished', id, was.ending, was.detail, record(id))
      end
      return
    end
    local others = Q.detach(id, request)
    local t = others and task_of(id, 'waiters')
    if t and t.waiters == '0' and t.st ~= 'P' then
      if token then call('HSET', tk(id), 'xby', token) end
      Q.stop(id, 'NobodyWaits', 'NobodyWaits')
    elseif t and t.waiters ~= '0' and others == 0 then
      Q.cancel(id, request, number)
    end
  end

  function Q.stop_abandoning(id)
    drop_timer('d', id)
    call('HDEL', tk(id), 'abandon')
  end

  function Q.check_abandoned(id)
    local t = task_of(id, 'waiters')
    if not t then return end
    call('HDEL', tk(id), 'abandon')
    if tonumber(t.waiters) == 0 and t.st ~= 'P' then Q.stop(id, 'NobodyWaits', 'NobodyWaits') end
  end

  -- `number`: which of the cancels of this frontend, and of those who gave up, it is, where it may be told twice.
  function Q.cancel(id, request, number)
    local token = number and me .. ':' .. number
    local again = token and fetch(tk(id), 'st', 'ending', 'detail', 'xby', 'x' .. request)
    -- The answer to the first call was lost on its way.
    if again and again['x' .. request] == token then
      return emit('RequestCancelled', id, request, record(id))
    elseif again and again.xby == token and again.st == 'F' then
      return emit('Finished', id, again.ending, again.detail, record(id))
    end
    local t = task_of(id, 'nreq', 'ncan', 'x' .. request)
    if not t or tonumber(request) >= tonumber(t.nreq) or t['x' .. request] or t.st == 'P' then
      return
    end
    -- The last one ends with the task.
    if call('HINCRBY', tk(id), 'ncan', 1) == tonumber(t.nreq) then
      if token then call('HSET', tk(id), 'xby', token) end
      return Q.stop(id, 'Cancelled', 'Cancelled')
    end
    call('HSET', tk(id), 'x' .. request, token or 1)
    local run = record(id)
    emit('RequestCancelled', id, request, run)
    tell_waiters(id, 'RequestCancelled', id, request, run)
  end
end)
