-- What people and metrics see.

-- how many tasks are listed, queued and running each
function Q.figures()
  local oldest = call('ZRANGE', P .. ':waiting', 0, 0, 'WITHSCORES')
  emit('Totals', queued(), call('ZCARD', P .. ':leases'), oldest[2] or '')
  local counters = { 'Counters' }
  local flat = call('HGETALL', M)
  for i = 1, #flat, 2 do
    if string.sub(flat[i], 1, 2) == 'c.' then
      counters[#counters + 1] = string.sub(flat[i], 3)
      counters[#counters + 1] = flat[i + 1]
    end
  end
  reply[#reply + 1] = enc(counters)
  for _, id in ipairs(call('ZRANGE', P .. ':workers', 0, -1)) do
    local w = fetch(P .. ':wk:' .. id, 'name', 'slots', 'draining', 'seen', 'class', 'info')
    emit('Worker', w.name, w.slots, call('ZCARD', P .. ':wl:' .. id), w.draining, w.seen,
      call('HGET', P .. ':class:' .. w.class, 'offer'), w.info)
  end
  for _, lane in ipairs(registered(P .. ':lanes')) do
    emit('Lane', lane.text, call('ZCARD', P .. ':ls:' .. lane.id),
      call('HGET', P .. ':lane:' .. lane.id, 'running'), Q.is_served(lane.id) and 1 or 0)
  end
  local last = tonumber(arg(1)) - 1
  for _, id in ipairs(call('ZRANGE', P .. ':waiting', 0, last)) do Q.state(id) end
  for _, id in ipairs(call('ZRANGE', P .. ':leases', 0, last)) do
    local task = call('HGET', lk(id), 'task')
    if task and task ~= '' then Q.state(task) end
  end
end
