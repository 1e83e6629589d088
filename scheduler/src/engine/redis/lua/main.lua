-- What was due before now happens first, then the event.

-- Timers that fire in one call; what is left fires in the next, which is due at once.
local MAX_FIRED = 2000

local FIRE = {
  a = 'check_silence', b = 'lease_expired', c = 'retry', d = 'check_abandoned',
  e = 'check_unsatisfiable', f = 'forget_finished', g = 'check_frontend',
  h = 'stray_expired', i = 'anywhere',
}

for _ = 1, MAX_FIRED do
  local first = call('ZRANGE', T, 0, 0, 'WITHSCORES')
  if not first[1] or tonumber(first[2]) > now then break end
  call('ZREM', T, first[1])
  Q[FIRE[string.sub(first[1], 1, 1)]](string.sub(first[1], 2))
end

if event ~= 'tick' then Q[event]() end
if freed then Q.dispatch_freed() end

for frontend, post in pairs(posts) do
  call('PUBLISH', P .. ':f:' .. frontend, table.concat(post))
end
local timer = call('ZRANGE', T, 0, 0, 'WITHSCORES')[2]
return { int(now), timer and int(tonumber(timer)) or '', table.concat(reply) }
