-- Workers, their slots, and which of them gets what.

-- Workers whose reason is named where all have paused.
local MAX_PAUSED_NAMED = 3

-- Slots that the worker says are taken.
local function occupied(id)
  return call('ZCARD', P .. ':wl:' .. id) + call('SCARD', P .. ':ws:' .. id)
end

local function takes(worker) return worker.draining == '0' and not worker.paused end

local function slots_changed(id)
  local worker = fetch(P .. ':wk:' .. id, 'slots', 'draining', 'paused', 'class')
  local free = takes(worker) and tonumber(worker.slots) - occupied(id) or 0
  if free > 0 then
    call('ZADD', P .. ':cf:' .. worker.class, -free, id)
  else
    call('ZREM', P .. ':cf:' .. worker.class, id)
  end
end

rarely(function()
  function Q.worker_joins(id, name, slots, offer, info, paused)
    local class = call('HGET', P .. ':classes', offer) or Q.add_class(offer)
    call('HSET', P .. ':wn', name, id)
    call('HSET', P .. ':wk:' .. id, 'name', name, 'slots', slots, 'draining', 0, 'seen', now,
      'class', class, 'fe', me, 'info', info)
    if paused ~= '' then call('HSET', P .. ':wk:' .. id, 'paused', paused) end
    call('ZADD', P .. ':workers', 0, id)
    call('HINCRBY', P .. ':class:' .. class, 'members', 1)
    if paused == '' then call('HINCRBY', P .. ':class:' .. class, 'takers', 1) end
    slots_changed(id)
  end

  -- Removes a worker. Returns its name, its leases and the lanes that nobody serves any more.
  function Q.worker_leaves(id)
    local key = P .. ':wk:' .. id
    local worker = fetch(key, 'name', 'class')
    if not worker.name then return nil end
    local unserved = Q.worker_drains(id)
    local leases = call('ZRANGE', P .. ':wl:' .. id, 0, -1)
    if call('HGET', P .. ':wn', worker.name) == id then call('HDEL', P .. ':wn', worker.name) end
    for _, lease in ipairs(call('SMEMBERS', P .. ':ws:' .. id)) do drop_timer('h', id .. lease) end
    call('DEL', key, P .. ':wl:' .. id, P .. ':ws:' .. id)
    call('ZREM', P .. ':workers', id)
    local class = worker.class
    if call('HINCRBY', P .. ':class:' .. class, 'members', -1) == 0 then Q.remove_class(class) end
    return worker.name, leases, unserved
  end

  -- Sets a field of the worker, or clears it (''). Returns the lanes that nobody serves any more.
  local function change_taking(id, field, value)
    local key = P .. ':wk:' .. id
    local worker = fetch(key, 'draining', 'paused', 'class')
    if not worker.class then return {} end
    if value == '' then call('HDEL', key, field) else call('HSET', key, field, value) end
    slots_changed(id)
    local took, still = takes(worker), takes(fetch(key, 'draining', 'paused'))
    local class = P .. ':class:' .. worker.class
    if still and not took then call('HINCRBY', class, 'takers', 1) end
    if still or not took or call('HINCRBY', class, 'takers', -1) > 0 then return {} end
    local unserved = {}
    for _, lane in ipairs(call('SMEMBERS', P .. ':cl:' .. worker.class)) do
      if not Q.is_served(lane) then
        call('HSET', P .. ':lane:' .. lane, 'unserved', now)
        unserved[#unserved + 1] = lane
      end
    end
    return unserved
  end

  -- The worker takes nothing more.
  function Q.worker_drains(id) return change_taking(id, 'draining', 1) end

  -- The worker takes nothing for now or, without a reason, takes tasks again.
  function Q.worker_pauses(id, reason) return change_taking(id, 'paused', reason) end
end)

function Q.occupy(id, lease)
  call('ZADD', P .. ':wl:' .. id, 0, lease)
  slots_changed(id)
end

function Q.vacate(id, lease)
  if call('ZREM', P .. ':wl:' .. id, lease) == 1 then slots_changed(id) end
end

rarely(function()
  -- False: that was known.
  function Q.add_stray(id, lease)
    if call('SADD', P .. ':ws:' .. id, lease) == 0 then return false end
    slots_changed(id)
    return true
  end

  -- False: it was no stray.
  function Q.remove_stray(id, lease)
    if call('SREM', P .. ':ws:' .. id, lease) == 0 then return false end
    slots_changed(id)
    return true
  end

  -- Whether a worker but this one takes tasks of the lane.
  function Q.has_other_taker(lane, id)
    local worker = fetch(P .. ':wk:' .. id, 'draining', 'paused', 'class')
    local others = 0
    for _, class in ipairs(call('SMEMBERS', P .. ':lc:' .. lane)) do
      others = others + tonumber(call('HGET', P .. ':class:' .. class, 'takers'))
      if class == worker.class and takes(worker) then others = others - 1 end
    end
    return others > 0
  end

  -- Names and reasons of paused workers that offer what the lane requires; nil where there are none.
  function Q.paused(lane)
    local found = {}
    for _, id in ipairs(call('ZRANGE', P .. ':workers', 0, -1)) do
      local worker = fetch(P .. ':wk:' .. id, 'name', 'draining', 'paused', 'class')
      if worker.paused and worker.draining == '0'
        and call('SISMEMBER', P .. ':lc:' .. lane, worker.class) == 1 then
        found[#found + 1] = worker.name
        found[#found + 1] = worker.paused
        if #found == 2 * MAX_PAUSED_NAMED then break end
      end
    end
    return found[1] and found
  end
end)

-- A worker with a free slot for the lane: the one with the most, if possible not `avoid`; where
-- `elsewhere`, never that.
function Q.free_worker(lane, avoid, elsewhere)
  local best, any
  local function better(a, b) return not b or a[1] < b[1] or a[1] == b[1] and a[2] < b[2] end
  for _, class in ipairs(call('SMEMBERS', P .. ':lc:' .. lane)) do
    local flat = call('ZRANGE', P .. ':cf:' .. class, 0, 1, 'WITHSCORES')
    for i = 1, #flat, 2 do
      local worker = { tonumber(flat[i + 1]), flat[i] }
      if better(worker, any) then any = worker end
      if flat[i] ~= avoid and better(worker, best) then best = worker end
    end
  end
  best = best or not elsewhere and any
  return best and best[2]
end

-- The task that a free slot of this worker should run next.
function Q.next_task(id)
  local worker = fetch(P .. ':wk:' .. id, 'slots', 'draining', 'paused', 'class')
  if not takes(worker) then return nil end
  local lanes = call('SMEMBERS', P .. ':cr:' .. worker.class)
  if not lanes[1] or tonumber(worker.slots) <= occupied(id) then return nil end
  -- Most times there is none that goes elsewhere or is held back, and then the first of a lane
  -- will do.
  local some_go_elsewhere = Q.some_run_quota() or call('EXISTS', P .. ':else') == 1
  local best
  for _, lane in ipairs(lanes) do
    local head
    if some_go_elsewhere then
      Q.in_turn(lane, function(candidate)
        local t = fetch(P .. ':t:' .. candidate.task, 'avoid', 'elsewhere')
        if t.elsewhere and t.avoid == id then return false end
        head = candidate
        return true
      end)
    else
      head = Q.head(lane)
    end
    if head and (not best or Q.is_before(head, best)) then best = head end
  end
  return best and best.task
end
