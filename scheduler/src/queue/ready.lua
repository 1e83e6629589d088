-- Tasks that wait, in the order in which they should run.

-- Tasks of a lane that are looked at for one that may go to a free worker.
local MAX_LOOKED_AT = 32

-- A turn as one score: slots that run, then when the invocation was last served.
local SERVES = 2 ^ 36
local function score(running, served) return tonumber(running) * SERVES + tonumber(served) end

function Q.refer_invocation(name, owner)
  name = enc({ name, owner.instance, owner.caller })
  local id = call('HGET', P .. ':invs', name)
  if not id then
    id = pad(bump('next_invocation'))
    call('HSET', P .. ':invs', name, id)
    call('HSET', P .. ':inv:' .. id, 'name', name, 'refs', 0, 'running', 0, 'served', 0,
      'instance', owner.instance, 'caller', owner.caller)
  end
  Q.refer_invocation_again(id)
  return id
end

function Q.refer_invocation_again(id) call('HINCRBY', P .. ':inv:' .. id, 'refs', 1) end

function Q.forget_invocation(id)
  local key = P .. ':inv:' .. id
  if call('HINCRBY', key, 'refs', -1) == 0 then
    call('HDEL', P .. ':invs', call('HGET', key, 'name'))
    call('DEL', key)
  end
end

local function level(lane, prio) return lane .. ':' .. prio end

function Q.push(task, p)
  local place = level(p.lane, p.prio)
  local waiting = P .. ':w:' .. place .. ':' .. p.inv
  if call('EXISTS', waiting) == 0 then
    local i = fetch(P .. ':inv:' .. p.inv, 'running', 'served')
    call('ZADD', P .. ':tu:' .. place, score(i.running, i.served), p.inv)
    call('SADD', P .. ':ip:' .. p.inv, place)
    call('ZADD', P .. ':lv:' .. p.lane, p.prio, p.prio)
  end
  call('ZADD', waiting, -p.exp, task)
end

function Q.remove(task, p)
  local place = level(p.lane, p.prio)
  local waiting = P .. ':w:' .. place .. ':' .. p.inv
  call('ZREM', waiting, task)
  if call('EXISTS', waiting) == 1 then return end
  call('ZREM', P .. ':tu:' .. place, p.inv)
  call('SREM', P .. ':ip:' .. p.inv, place)
  if call('EXISTS', P .. ':tu:' .. place) == 0 then
    call('ZREM', P .. ':lv:' .. p.lane, p.prio)
  end
end

-- The lane's next task and its turn among other lanes.
function Q.head(lane)
  local prio = call('ZRANGE', P .. ':lv:' .. lane, 0, 0)[1]
  if not prio then return nil end
  local place = level(lane, prio)
  local first = call('ZRANGE', P .. ':tu:' .. place, 0, 0, 'WITHSCORES')
  local task = call('ZRANGE', P .. ':w:' .. place .. ':' .. first[1], 0, 0)[1]
  return { tonumber(prio), tonumber(first[2]), task = task }
end

function Q.is_before(a, b)
  return a[1] < b[1] or a[1] == b[1] and (a[2] < b[2] or a[2] == b[2] and a.task < b.task)
end

rarely(function()
  -- Shows `take` the lane's tasks of those who may run more, the next one first, until it takes one
  -- or enough were looked at.
  function Q.in_turn(lane, take)
    local left = MAX_LOOKED_AT
    for _, prio in ipairs(call('ZRANGE', P .. ':lv:' .. lane, 0, -1)) do
      local place = level(lane, prio)
      local turns = call('ZRANGE', P .. ':tu:' .. place, 0, -1, 'WITHSCORES')
      for i = 1, #turns, 2 do
        local waiting = P .. ':w:' .. place .. ':' .. turns[i]
        local tasks = Q.is_full(turns[i]) and {} or call('ZRANGE', waiting, 0, left - 1)
        for _, task in ipairs(tasks) do
          if take({ tonumber(prio), tonumber(turns[i + 1]), task = task }) then return end
          left = left - 1
          if left == 0 then return end
        end
      end
    end
  end
end)

-- The invocation has its place in each line anew.
local function turn(inv, running, served)
  local places = call('SMEMBERS', P .. ':ip:' .. inv)
  if not places[1] then return end
  served = served or call('HGET', P .. ':inv:' .. inv, 'served')
  for _, place in ipairs(places) do
    call('ZADD', P .. ':tu:' .. place, score(running, served), inv)
  end
end

-- A slot of the invocation begins to run: it goes to the back of its equals.
function Q.started(inv)
  local served = bump('serves')
  local running = call('HINCRBY', P .. ':inv:' .. inv, 'running', 1)
  call('HSET', P .. ':inv:' .. inv, 'served', served)
  turn(inv, running, served)
end

function Q.stopped(inv) turn(inv, call('HINCRBY', P .. ':inv:' .. inv, 'running', -1)) end
