-- Workers by what they offer, lanes by what their tasks require: see scheduler/src/queue/fleet.rs.

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

-- All members of a registry (a hash from what it describes to its id), by id.
local function registered(key)
  local flat, list = call('HGETALL', key), {}
  for i = 1, #flat, 2 do list[#list + 1] = { text = flat[i], id = flat[i + 1] } end
  table.sort(list, function(a, b) return a.id < b.id end)
  return list
end

local function link(class, lane)
  call('SADD', P .. ':lc:' .. lane, class)
  call('SADD', P .. ':cl:' .. class, lane)
end

local function add_lane(requirement)
  local id = pad(bump('next_fleet'))
  for _, class in ipairs(registered(P .. ':classes')) do
    if satisfies(class.text, requirement) then link(class.id, id) end
  end
  call('HSET', P .. ':lanes', requirement, id)
  call('HSET', P .. ':lane:' .. id, 'req', requirement, 'refs', 0, 'unserved', now)
  bump('idle_lanes')
  return id
end

function Q.refer_lane_again(id)
  if call('HINCRBY', P .. ':lane:' .. id, 'refs', 1) == 1 then bump('idle_lanes', -1) end
end

function Q.refer_lane(requirement)
  local id = call('HGET', P .. ':lanes', requirement) or add_lane(requirement)
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

local function add_class(offer)
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

local function show_free(worker, class, free)
  if free > 0 then
    call('ZADD', P .. ':cf:' .. class, -free, worker)
  else
    call('ZREM', P .. ':cf:' .. class, worker)
  end
end

function Q.worker_joins(id, name, slots, offer, info)
  local class = call('HGET', P .. ':classes', offer) or add_class(offer)
  call('HSET', P .. ':wn', name, id)
  call('HSET', P .. ':wk:' .. id, 'name', name, 'slots', slots, 'draining', 0, 'seen', now,
    'class', class, 'fe', me, 'info', info)
  call('ZADD', P .. ':workers', 0, id)
  call('HINCRBY', P .. ':class:' .. class, 'members', 1)
  call('HINCRBY', P .. ':class:' .. class, 'takers', 1)
  show_free(id, class, tonumber(slots))
end

function Q.is_served(lane)
  for _, class in ipairs(call('SMEMBERS', P .. ':lc:' .. lane)) do
    if tonumber(call('HGET', P .. ':class:' .. class, 'takers')) > 0 then return true end
  end
  return false
end

-- The worker takes nothing more. Returns the lanes that nobody serves any more.
function Q.worker_drains(id)
  local worker = fetch(P .. ':wk:' .. id, 'draining', 'class')
  if worker.draining ~= '0' then return {} end
  call('HSET', P .. ':wk:' .. id, 'draining', 1)
  show_free(id, worker.class, 0)
  if call('HINCRBY', P .. ':class:' .. worker.class, 'takers', -1) > 0 then return {} end
  local unserved = {}
  for _, lane in ipairs(call('SMEMBERS', P .. ':cl:' .. worker.class)) do
    if not Q.is_served(lane) then
      call('HSET', P .. ':lane:' .. lane, 'unserved', now)
      unserved[#unserved + 1] = lane
    end
  end
  return unserved
end

-- Removes a worker. Returns its name, its leases and the lanes that nobody serves any more.
function Q.worker_leaves(id)
  local key = P .. ':wk:' .. id
  local worker = fetch(key, 'name', 'class')
  if not worker.name then return nil end
  local unserved = Q.worker_drains(id)
  local leases = call('ZRANGE', P .. ':wl:' .. id, 0, -1)
  if call('HGET', P .. ':wn', worker.name) == id then call('HDEL', P .. ':wn', worker.name) end
  call('DEL', key, P .. ':wl:' .. id)
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

local function slots_changed(id)
  local worker = fetch(P .. ':wk:' .. id, 'slots', 'draining', 'class')
  if worker.draining == '0' then
    local free = tonumber(worker.slots) - call('ZCARD', P .. ':wl:' .. id)
    show_free(id, worker.class, free)
  end
end

function Q.occupy(id, lease)
  call('ZADD', P .. ':wl:' .. id, 0, lease)
  slots_changed(id)
end

function Q.vacate(id, lease)
  if call('ZREM', P .. ':wl:' .. id, lease) == 1 then slots_changed(id) end
end

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

-- A worker with a free slot for the lane: the one with the most, if possible not `avoid`.
function Q.free_worker(lane, avoid)
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
  best = best or any
  return best and best[2]
end

-- The task that a free slot of this worker should run next.
function Q.next_task(id)
  local worker = fetch(P .. ':wk:' .. id, 'slots', 'draining', 'class')
  if worker.draining ~= '0' then return nil end
  local lanes = call('SMEMBERS', P .. ':cr:' .. worker.class)
  if not lanes[1] or tonumber(worker.slots) <= call('ZCARD', P .. ':wl:' .. id) then return nil end
  local best
  for _, lane in ipairs(lanes) do
    local head = Q.head(lane)
    if not best or head[1] < best[1] or head[1] == best[1] and (head[2] < best[2]
      or head[2] == best[2] and head.task < best.task) then
      best = head
    end
  end
  return best and best.task
end

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
