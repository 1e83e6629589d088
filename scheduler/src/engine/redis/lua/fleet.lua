-- Workers by what they offer, lanes by what their tasks require: see scheduler/src/queue/fleet.rs.

-- Workers whose reason is named where all have paused.
local MAX_PAUSED_NAMED = 3

-- All members of a registry (a hash from what it describes to its id), by id.
local function registered(key)
  local flat, list = call('HGETALL', key), {}
  for i = 1, #flat, 2 do list[#list + 1] = { text = flat[i], id = flat[i + 1] } end
  table.sort(list, function(a, b) return a.id < b.id end)
  return list
end

rarely(function()
  local function pairs_of(text)
    local fields, list = dec(text), {}
    for i = 1, #fields, 2 do list[#list + 1] = { fields[i], fields[i + 1] } end
    return list
  end

  local function satisfies(offer, requirement)
    local has = {}
    for _, pair in ipairs(pairs_of(offer)) do has[enc(pair)] = true end
    for _, pair in ipairs(pairs_of(requirement)) do
      local name = pair[1]
      if not (has[enc(pair)] or has[enc({ name, '*' })] or has[enc({ '*', '*' })]) then
        return false
      end
    end
    return true
  end

  local function link(class, lane)
    call('SADD', P .. ':lc:' .. lane, class)
    call('SADD', P .. ':cl:' .. class, lane)
  end

  function Q.add_lane(requirement)
    local id = pad(bump('next_fleet'))
    for _, class in ipairs(registered(P .. ':classes')) do
      if satisfies(class.text, requirement) then link(class.id, id) end
    end
    call('HSET', P .. ':lanes', requirement, id)
    call('HSET', P .. ':lane:' .. id, 'req', requirement, 'refs', 0, 'unserved', now)
    bump('idle_lanes')
    return id
  end

  function Q.add_class(offer)
    local id = pad(bump('next_fleet'))
    for _, lane in ipairs(registered(P .. ':lanes')) do
      if satisfies(offer, lane.text) then
        link(id, lane.id)
        if call('EXISTS', P .. ':ls:' .. lane.id) == 1 then
          call('SADD', P .. ':cr:' .. id, lane.id)
        end
      end
    end
    call('HSET', P .. ':classes', offer, id)
    call('HSET', P .. ':class:' .. id, 'offer', offer, 'members', 0, 'takers', 0)
    return id
  end
end)

function Q.refer_lane_again(id)
  if call('HINCRBY', P .. ':lane:' .. id, 'refs', 1) == 1 then bump('idle_lanes', -1) end
end

function Q.refer_lane(requirement)
  local id = call('HGET', P .. ':lanes', requirement) or Q.add_lane(requirement)
  Q.refer_lane_again(id)
  return id
end

function Q.unrefer_lane(id)
  if call('HINCRBY', P .. ':lane:' .. id, 'refs', -1) > 0 then return end
  if bump('idle_lanes') <= limit('max_idle_lanes') then return end
  for _, lane in ipairs(registered(P .. ':lanes')) do
    if call('HGET', P .. ':lane:' .. lane.id, 'refs') == '0' then
      for _, class in ipairs(call('SMEMBERS', P .. ':lc:' .. lane.id)) do
        call('SREM', P .. ':cl:' .. class, lane.id)
      end
      call('HDEL', P .. ':lanes', lane.text)
      call('DEL', P .. ':lane:' .. lane.id, P .. ':lc:' .. lane.id)
    end
  end
  call('HSET', M, 'idle_lanes', 0)
end

local function show_free(worker, class, free)
  if free > 0 then
    call('ZADD', P .. ':cf:' .. class, -free, worker)
  else
    call('ZREM', P .. ':cf:' .. class, worker)
  end
end

local function takes(worker) return worker.draining == '0' and not worker.paused end

-- Slots that the worker says are taken.
local function occupied(id) return call('ZCARD', P .. ':wl:' .. id) + call('SCARD', P .. ':ws:' .. id) end

local function slots_changed(id)
  local worker = fetch(P .. ':wk:' .. id, 'slots', 'draining', 'paused', 'class')
  local free = takes(worker) and tonumber(worker.slots) - occupied(id) or 0
  show_free(id, worker.class, free)
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
end)

function Q.is_served(lane)
  for _, class in ipairs(call('SMEMBERS', P .. ':lc:' .. lane)) do
    if tonumber(call('HGET', P .. ':class:' .. class, 'takers')) > 0 then return true end
  end
  return false
end

rarely(function()
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
    if call('HINCRBY', P .. ':class:' .. class, 'members', -1) == 0 then
      for _, lane in ipairs(call('SMEMBERS', P .. ':cl:' .. class)) do
        call('SREM', P .. ':lc:' .. lane, class)
      end
      call('HDEL', P .. ':classes', call('HGET', P .. ':class:' .. class, 'offer'))
      call('DEL', P .. ':class:' .. class, P .. ':cl:' .. class, P .. ':cr:' .. class,
        P .. ':cf:' .. class)
    end
    return worker.name, leases, unserved
  end
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
end)

-- A task begins or ends to wait in the lane.
function Q.set_waiting(lane, since, task, waits)
  local key = P .. ':ls:' .. lane
  local was = call('EXISTS', key)
  if waits then call('ZADD', key, since, task) else call('ZREM', key, task) end
  local is = call('EXISTS', key)
  if was == is then return end
  for _, class in ipairs(call('SMEMBERS', P .. ':lc:' .. lane)) do
    call(is == 1 and 'SADD' or 'SREM', P .. ':cr:' .. class, lane)
  end
end

rarely(function()
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

rarely(function()
  -- The offers of those who take tasks.
  function Q.offers()
    local offers = {}
    for _, class in ipairs(registered(P .. ':classes')) do
      if tonumber(call('HGET', P .. ':class:' .. class.id, 'takers')) > 0 then
        offers[#offers + 1] = class.text
      end
    end
    return offers
  end
end)
