-- What was due before now happens first, then the event.

-- Timers that fire in one call; what is left fires in the next, which is due at once.
local MAX_FIRED = 2000

-- How long the number of a call is known that may be told twice: it is told again at once.
local RETOLD_MS = 600000

local FIRE = {
  a = 'check_silence', b = 'lease_expired', c = 'retry', d = 'check_abandoned',
  e = 'check_unsatisfiable', f = 'forget_finished', g = 'check_frontend',
  h = 'stray_expired', i = 'anywhere',
}

local function run(keys, arguments)
  begin(keys[1], arguments)
  for _ = 1, MAX_FIRED do
    local first = call('ZRANGE', T, 0, 0, 'WITHSCORES')
    if not first[1] or tonumber(first[2]) > now then break end
    call('ZREM', T, first[1])
    Q[FIRE[string.sub(first[1], 1, 1)]](string.sub(first[1], 2))
  end

  -- Often ones come first. The arguments of each are those of its function.
  if event == 'submit' then
    Q.submit({
      key = arg(1), req = arg(2), prio = arg(3), invocation = arg(4), exp = arg(5),
      timeout = arg(6), alone = arg(7), skip = arg(8), job = arg(9), request = arg(10),
      avoid = arg(11), carried = arg(12), instance = arg(13), caller = arg(14),
    })
  elseif event == 'completed' then
    Q.completed(arg(1), arg(2), arg(3))
  elseif event == 'published' then
    Q.published(arg(1), arg(2), tonumber(arg(3)), arg(4), arg(5))
  elseif event == 'beat' then
    Q.beat(arg(1))
  elseif event == 'detach' or event == 'gave_up' then
    local left = args(1)
    -- Behind the pairs: which of such calls of this frontend it is, where it may be told twice.
    local number = #left % 2 == 1 and left[#left]
    local again
    if number then
      again = call('GET', P .. ':gu:' .. me) == number and {}
      call('SET', P .. ':gu:' .. me, number, 'PX', RETOLD_MS)
    end
    for i = 1, #left - 1, 2 do Q[event](left[i], left[i + 1], number, again) end
  elseif event == 'heartbeat' then
    Q.heartbeats(1, true)
  elseif event == 'worker_joined' then
    Q.worker_joined(arg(1), arg(2), tonumber(arg(3)), arg(4), arg(5), arg(6), args(7))
  elseif event == 'worker_draining' then
    for _, worker in ipairs(args(1)) do Q.worker_draining(worker) end
  elseif event == 'refused' then
    local listed = {}
    for _, lease in ipairs(args(4)) do listed[lease] = true end
    Q.refused(arg(1), arg(2), arg(3), listed)
  elseif event == 'progress' then
    Q.progress(arg(1), arg(2), arg(3) == '1')
  elseif event == 'waits' or event == 'waits_only' or event == 'publishes' then
    Q[event](args(1))
  elseif event == 'look' then
    for _, task in ipairs(args(1)) do Q.state(task) end
  elseif event == 'figures' then
    Q.figures(tonumber(arg(1)))
  elseif event ~= 'tick' then
    Q[event](arg(1), arg(2), arg(3))
  end
  if freed then Q.dispatch_freed() end

  for frontend, post in pairs(posts) do
    call('PUBLISH', P .. ':f:' .. frontend, table.concat(post))
  end
  local timer = call('ZRANGE', T, 0, 0, 'WITHSCORES')[2]
  return { int(now), timer and int(tonumber(timer)) or '', table.concat(reply) }
end
