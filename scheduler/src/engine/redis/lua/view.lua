-- The engine's own: what people and metrics see.

rarely(function()
  -- `most`: how many tasks are listed, queued and running each.
  function Q.figures(most)
    local oldest = call('ZRANGE', P .. ':waiting', 0, 0, 'WITHSCORES')
    local counters = { 'Counters' }
    local flat = call('HGETALL', M)
    for i = 1, #flat, 2 do
      if string.sub(flat[i], 1, 2) == 'c.' then
        counters[#counters + 1] = string.sub(flat[i], 3)
        counters[#counters + 1] = flat[i + 1]
      end
    end
    reply[#reply + 1] = enc(counters)
    local lanes, leases = {}, {}
    for _, id in ipairs(call('ZRANGE', P .. ':workers', 0, -1)) do
      for _, lease in ipairs(call('ZRANGE', P .. ':wl:' .. id, 0, -1)) do
        local lane = call('HGET', lk(lease), 'lane')
        lanes[lane] = (lanes[lane] or 0) + 1
        leases[#leases + 1] = lease
      end
      local w = fetch(P .. ':wk:' .. id, 'name', 'slots', 'draining', 'seen', 'class', 'info', 'paused')
      emit('Worker', w.name, w.slots, occupied(id), w.draining, w.seen,
        call('HGET', P .. ':class:' .. w.class, 'offer'), w.info, w.paused or '')
    end
    for _, lane in ipairs(registered(P .. ':lanes')) do
      emit('Lane', lane.text, call('ZCARD', P .. ':ls:' .. lane.id),
        lanes[lane.id] or 0, Q.is_served(lane.id) and 1 or 0)
    end
    emit('Totals', queued(), #leases, oldest[2] or '')
    for _, id in ipairs(call('ZRANGE', P .. ':waiting', 0, most - 1)) do Q.state(id) end
    table.sort(leases)
    for i = 1, math.min(most, #leases) do
      local task = call('HGET', lk(leases[i]), 'task')
      if task ~= '' then Q.state(task) end
    end
  end
end)
