-- Lanes are tasks by what they require; classes are workers by what they offer.

-- All members of a registry (a hash from what it describes to its id), by id.
local function registered(key)
  local flat, list = call('HGETALL', key), {}
  for i = 1, #flat, 2 do list[#list + 1] = { text = flat[i], id = flat[i + 1] } end
  table.sort(list, function(a, b) return a.id < b.id end)
  return list
end

function Q.refer_lane(requirement)
  local id = call('HGET', P .. ':lanes', requirement) or Q.add_lane(requirement)
  Q.refer_lane_again(id)
  return id
end

function Q.refer_lane_again(id)
  if call('HINCRBY', P .. ':lane:' .. id, 'refs', 1) == 1 then bump('idle_lanes', -1) end
end

function Q.unrefer_lane(id)
  if call('HINCRBY', P .. ':lane:' .. id, 'refs', -1) > 0 then return end
  if bump('idle_lanes') <= limit('max_idle_lanes') then return end
  for _, lane in ipairs(registered(P .. ':lanes')) do
    if call('HGET', P .. ':lane:' .. lane.id, 'refs') == '0' then Q.remove_lane(lane) end
  end
  call('HSET', M, 'idle_lanes', 0)
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

  function Q.remove_lane(lane)
    for _, class in ipairs(call('SMEMBERS', P .. ':lc:' .. lane.id)) do
      call('SREM', P .. ':cl:' .. class, lane.id)
    end
    call('HDEL', P .. ':lanes', lane.text)
    call('DEL', P .. ':lane:' .. lane.id, P .. ':lc:' .. lane.id)
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

  function Q.remove_class(id)
    for _, lane in ipairs(call('SMEMBERS', P .. ':cl:' .. id)) do
      call('SREM', P .. ':lc:' .. lane, id)
    end
    call('HDEL', P .. ':classes', call('HGET', P .. ':class:' .. id, 'offer'))
    call('DEL', P .. ':class:' .. id, P .. ':cl:' .. id, P .. ':cr:' .. id, P .. ':cf:' .. id)
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

function Q.is_served(lane)
  for _, class in ipairs(call('SMEMBERS', P .. ':lc:' .. lane)) do
    if tonumber(call('HGET', P .. ':class:' .. class, 'takers')) > 0 then return true end
  end
  return false
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
