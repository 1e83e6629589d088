-- What each instance and each caller may have waiting, and running.

local NO_QUOTA = 2 ^ 53

-- The owner's accounts by the name of their quota.
local function accounts(owner)
  local list = { { 'instance', owner.instance, 'Instance' } }
  if owner.caller ~= '' then list[2] = { 'caller', owner.caller, 'Caller' } end
  return list
end

local function used(kind, account)
  return tonumber(call('HGET', P .. ':used:' .. kind, account[1] .. ':' .. account[2]) or 0)
end

-- Of whom too many actions wait; nil: nobody.
function Q.refuses(owner)
  for _, account in ipairs(accounts(owner)) do
    local most = limit(account[1] .. '_queued')
    if most < NO_QUOTA and used('queued', account) >= most then return account[3] end
  end
end

local function owner_of(inv) return fetch(P .. ':inv:' .. inv, 'instance', 'caller') end

function Q.some_run_quota()
  return limit('instance_running') < NO_QUOTA or limit('caller_running') < NO_QUOTA
end

-- Whether no more actions of the invocation's owner may run.
function Q.is_full(inv)
  if not Q.some_run_quota() then return false end
  for _, account in ipairs(accounts(owner_of(inv))) do
    if used('running', account) >= limit(account[1] .. '_running') then return true end
  end
  return false
end

local function count_used(kind, inv, by)
  for _, account in ipairs(accounts(owner_of(inv))) do
    local field = account[1] .. ':' .. account[2]
    if call('HINCRBY', P .. ':used:' .. kind, field, by) <= 0 then
      call('HDEL', P .. ':used:' .. kind, field)
    end
  end
end

function Q.count_queued(inv, by) count_used('queued', inv, by) end

function Q.count_running(inv, by)
  if by < 0 and Q.is_full(inv) then freed = true end
  count_used('running', inv, by)
end
