"""The store's Lua scripts: each one atomic step over the keys of one run (or one directory hash).

A script answers with a list that begins with a word: `ok`, or what stood in the way (`gone`: no such
run; `lost`: the lease is not held under that epoch; others say so at the script). Every script that
changes something may be run again when its reply was lost: it finds what it did and changes nothing.
The first argument is always `repeated`: '1' when an earlier attempt may have got through.
Money is counted in whole nano-dollars, because sums of floats do not come back to zero.
"""

from __future__ import annotations

from typing import Final

TOKENS_KEPT: Final = 512
"""Writes of one run that a repeated write is recognised among; far more than one retry takes."""

PRELUDE: Final = f"""
local function now_ms()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
end
local function whole(x) return string.format('%.0f', x) end
local function keep(key, expires_ms)
  if redis.call('PTTL', key) == -1 then redis.call('PEXPIREAT', key, expires_ms) end
end
local function remembered(key, token)
  for _, item in ipairs(redis.call('LRANGE', key, 0, -1)) do
    if string.sub(item, 1, #token + 1) == token .. ' ' then return string.sub(item, #token + 2) end
  end
end
local function remember(key, token, value, expires_ms)
  redis.call('LPUSH', key, token .. ' ' .. value)
  redis.call('LTRIM', key, 0, {TOKENS_KEPT - 1})
  keep(key, expires_ms)
end
"""

CREATE: Final = (
    PRELUDE
    + """
-- KEYS run, lease, files. ARGV repeated, lease_ms, ttl_ms, how many of what follows are files: digest,
-- content, ...; then field, value, ...
if redis.call('EXISTS', KEYS[1]) == 0 then
  local bytes, fields = 0, 5 + tonumber(ARGV[4])
  for i = 5, fields - 1, 2 do
    redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 1])
    bytes = bytes + #ARGV[i + 1]
  end
  redis.call('PEXPIRE', KEYS[3], ARGV[3])
  redis.call('HSET', KEYS[1], 'expires_ms', whole(now_ms() + tonumber(ARGV[3])),
    'files_bytes', whole(bytes), unpack(ARGV, fields))
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  redis.call('SET', KEYS[2], '1', 'PX', ARGV[2])
end
return {'ok'}
"""
)

APPEND: Final = (
    PRELUDE
    + """
-- KEYS run, lease, log, tokens. ARGV repeated, epoch, token, state ('' stays), allowed states, entry, ...
-- Answers ok and the first number; or `state` and the state that cannot be left this way.
local run = redis.call('HMGET', KEYS[1], 'state', 'records', 'expires_ms')
if not run[1] then return {'gone'} end
if ARGV[1] == '1' then
  local first = remembered(KEYS[4], ARGV[3])
  if first then return {'ok', tonumber(first)} end
end
if redis.call('GET', KEYS[2]) ~= ARGV[2] then return {'lost'} end
if ARGV[4] ~= '' then
  if not string.find(ARGV[5], ',' .. run[1] .. ',', 1, true) then return {'state', run[1]} end
  redis.call('HSET', KEYS[1], 'state', ARGV[4])
end
local last = tonumber(run[2])
for i = 6, #ARGV do
  redis.call('XADD', KEYS[3], whole(last + i - 5) .. '-0', 'e', ARGV[i])
end
redis.call('HSET', KEYS[1], 'records', whole(last + #ARGV - 5))
keep(KEYS[3], run[3])
remember(KEYS[4], ARGV[3], whole(last + 1), run[3])
return {'ok', last + 1}
"""
)

FINISH: Final = (
    PRELUDE
    + """
-- KEYS run, lease, log, then the other keys that are kept. ARGV repeated, epoch, token, allowed states,
-- retention_ms, entry, field, value, ...
-- Answers ok; or `ended` and whether this very call had ended it; or `state`.
local run = redis.call('HMGET', KEYS[1], 'state', 'records', 'ended_by')
if not run[1] then return {'gone'} end
if run[3] then return {'ended', run[3] == ARGV[3] and 1 or 0} end
if redis.call('GET', KEYS[2]) ~= ARGV[2] then return {'lost'} end
if not string.find(ARGV[4], ',' .. run[1] .. ',', 1, true) then return {'state', run[1]} end
local number = whole(tonumber(run[2]) + 1)
redis.call('XADD', KEYS[3], number .. '-0', 'e', ARGV[6])
redis.call('HSET', KEYS[1], 'records', number, 'ended_by', ARGV[3],
  'expires_ms', whole(now_ms() + tonumber(ARGV[5])), unpack(ARGV, 7))
redis.call('DEL', KEYS[2])
for i, key in ipairs(KEYS) do
  if i ~= 2 then redis.call('PEXPIRE', key, ARGV[5]) end
end
return {'ok'}
"""
)

KEEP_FILE: Final = (
    PRELUDE
    + """
-- KEYS run, files. ARGV repeated, bytes_max, digest, content
-- Answers ok; or `full`.
local run = redis.call('HMGET', KEYS[1], 'expires_ms', 'files_bytes')
if not run[1] then return {'gone'} end
if redis.call('HEXISTS', KEYS[2], ARGV[3]) == 1 then return {'ok'} end
local bytes = tonumber(run[2] or '0') + #ARGV[4]
if bytes > tonumber(ARGV[2]) then return {'full'} end
redis.call('HSET', KEYS[2], ARGV[3], ARGV[4])
redis.call('HSET', KEYS[1], 'files_bytes', whole(bytes))
keep(KEYS[2], run[1])
return {'ok'}
"""
)

PUBLISH: Final = """
-- KEYS run, deltas. ARGV repeated, deltas, entries_max, ttl_ms
local run = redis.call('HMGET', KEYS[1], 'state', 'ended_by')
if not run[1] or run[2] then return {'gone'} end
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[3], '*', 'd', ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[4])
return {'ok'}
"""

FORGET: Final = """
-- KEYS claim. ARGV repeated, value: removed only if it is still that
if redis.call('GET', KEYS[1]) == ARGV[2] then redis.call('DEL', KEYS[1]) end
return {'ok'}
"""

RENEW: Final = """
-- KEYS lease. ARGV repeated, epoch, lease_ms
if redis.call('GET', KEYS[1]) ~= ARGV[2] then return {'lost'} end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return {'ok'}
"""

RELEASE: Final = """
-- KEYS lease. ARGV repeated, epoch
if redis.call('GET', KEYS[1]) == ARGV[2] then redis.call('DEL', KEYS[1]) end
return {'ok'}
"""

TAKE: Final = """
-- KEYS run, lease. ARGV repeated, lease_ms, owner, token.
-- Answers ok and the new epoch; or `lost`: held, or ended.
local run = redis.call('HMGET', KEYS[1], 'epoch', 'ended_by', 'taken_by')
if not run[1] then return {'gone'} end
if run[3] == ARGV[4] and redis.call('GET', KEYS[2]) == run[1] then return {'ok', tonumber(run[1])} end
if run[2] or redis.call('EXISTS', KEYS[2]) == 1 then return {'lost'} end
local epoch = redis.call('HINCRBY', KEYS[1], 'epoch', 1)
redis.call('HSET', KEYS[1], 'owner', ARGV[3], 'taken_by', ARGV[4])
redis.call('SET', KEYS[2], epoch, 'PX', ARGV[2])
return {'ok', epoch}
"""

RESERVE: Final = (
    PRELUDE
    + """
-- KEYS run, lease, budget. ARGV repeated, epoch, request_id, aggregation, tokens, cost.
-- `x` is spent, `x_held` reserved, `x_arms` what the arms have spent and reserved together.
-- Answers ok; or `over`, the limit's name, what is taken already, what is allowed.
local run = redis.call('HMGET', KEYS[1],
  'expires_ms', 'tokens_max', 'tokens_arms_max', 'cost_max', 'cost_arms_max')
if not run[1] then return {'gone'} end
if redis.call('GET', KEYS[2]) ~= ARGV[2] then return {'lost'} end
local reservation = 'r:' .. ARGV[3]
if redis.call('HEXISTS', KEYS[3], reservation) == 1 then return {'ok'} end
local arms = ARGV[4] == '0'
for i, kind in ipairs({'tokens', 'cost'}) do
  local total, arms_total = run[i * 2], run[i * 2 + 1]
  if total ~= '' then
    local used = redis.call('HMGET', KEYS[3], kind, kind .. '_held', kind .. '_arms')
    local taken = tonumber(used[1] or 0) + tonumber(used[2] or 0)
    local wanted = tonumber(ARGV[4 + i])
    if taken + wanted > tonumber(total) then return {'over', kind, whole(taken), total} end
    local by_arms = tonumber(used[3] or 0)
    if arms and by_arms + wanted > tonumber(arms_total) then
      return {'over', kind, whole(by_arms), arms_total}
    end
  end
end
for i, kind in ipairs({'tokens', 'cost'}) do
  redis.call('HINCRBY', KEYS[3], kind .. '_held', ARGV[4 + i])
  if arms then redis.call('HINCRBY', KEYS[3], kind .. '_arms', ARGV[4 + i]) end
end
redis.call('HSET', KEYS[3], reservation, ARGV[4] .. ' ' .. ARGV[5] .. ' ' .. ARGV[6])
keep(KEYS[3], run[1])
return {'ok'}
"""
)

SETTLE: Final = """
-- KEYS run, budget. ARGV repeated, request_id, tokens, cost.
-- A settled reservation stays, empty: it is settled once.
if redis.call('EXISTS', KEYS[1]) == 0 then return {'gone'} end
local reservation = 'r:' .. ARGV[2]
local held = redis.call('HGET', KEYS[2], reservation)
if not held or held == '' then return {'ok'} end
local aggregation, tokens, cost = string.match(held, '^(%d) (%d+) (%d+)$')
for i, part in ipairs({{'tokens', tokens}, {'cost', cost}}) do
  local kind, amount = part[1], tonumber(part[2])
  -- 0 - amount, not -amount: minus zero is printed as "-0", which is no integer
  redis.call('HINCRBY', KEYS[2], kind .. '_held', string.format('%.0f', 0 - amount))
  redis.call('HINCRBY', KEYS[2], kind, ARGV[2 + i])
  if aggregation == '0' then
    redis.call('HINCRBY', KEYS[2], kind .. '_arms', string.format('%.0f', tonumber(ARGV[2 + i]) - amount))
  end
end
redis.call('HSET', KEYS[2], reservation, '')
return {'ok'}
"""

COUNT_TOOL_CALLS: Final = (
    PRELUDE
    + """
-- KEYS run, budget, tokens. ARGV repeated, token, calls. Answers ok and the total; or `over` as above.
local run = redis.call('HMGET', KEYS[1], 'expires_ms', 'tool_calls_max')
if not run[1] then return {'gone'} end
if ARGV[1] == '1' then
  local total = remembered(KEYS[3], ARGV[2])
  if total then return {'ok', tonumber(total)} end
end
local used = tonumber(redis.call('HGET', KEYS[2], 'tool_calls') or 0)
local total = used + tonumber(ARGV[3])
if run[2] ~= '' and total > tonumber(run[2]) then return {'over', 'tool_calls', whole(used), run[2]} end
redis.call('HSET', KEYS[2], 'tool_calls', whole(total))
keep(KEYS[2], run[1])
remember(KEYS[3], ARGV[2], whole(total), run[1])
return {'ok', total}
"""
)

SEND_CONTROL: Final = (
    PRELUDE
    + """
-- KEYS run, control. ARGV repeated, what, message, cancel reason ('' for others), channel, run
local run = redis.call('HMGET', KEYS[1], 'expires_ms', 'ended_by')
if not run[1] then return {'gone'} end
if run[2] then return {'ok'} end
redis.call('HSETNX', KEYS[2], ARGV[2], ARGV[3])
keep(KEYS[2], run[1])
if ARGV[4] ~= '' then redis.call('HSETNX', KEYS[1], 'cancel_reason', ARGV[4]) end
redis.call('PUBLISH', ARGV[5], ARGV[6])
return {'ok'}
"""
)

ASK_CALLER: Final = (
    PRELUDE
    + """
-- KEYS run, lease, calls, calls_over. ARGV repeated, epoch, id, call, channel, hint
local run = redis.call('HMGET', KEYS[1], 'expires_ms', 'ended_by')
if not run[1] then return {'gone'} end
if run[2] or redis.call('GET', KEYS[2]) ~= ARGV[2] then return {'lost'} end
if redis.call('SISMEMBER', KEYS[4], ARGV[3]) == 1 then return {'ok'} end
redis.call('HSETNX', KEYS[3], ARGV[3], ARGV[4])
keep(KEYS[3], run[1])
redis.call('PUBLISH', ARGV[5], ARGV[6])
return {'ok'}
"""
)

ANSWER_CALLER: Final = (
    PRELUDE
    + """
-- KEYS run, calls, results, calls_over. ARGV repeated, id, result, channel, hint.
-- Answers ok; or what the result is: `duplicate`, `over`, `no_such_call`.
local run = redis.call('HMGET', KEYS[1], 'expires_ms', 'ended_by')
if not run[1] then return {'gone'} end
if redis.call('SISMEMBER', KEYS[4], ARGV[2]) == 1 then return {'over'} end
if redis.call('HEXISTS', KEYS[2], ARGV[2]) == 0 then return {'no_such_call'} end
if run[2] then return {'over'} end
if redis.call('HSETNX', KEYS[3], ARGV[2], ARGV[3]) == 0 and ARGV[1] ~= '1' then return {'duplicate'} end
keep(KEYS[3], run[1])
redis.call('PUBLISH', ARGV[4], ARGV[5])
return {'ok'}
"""
)

END_CALL: Final = (
    PRELUDE
    + """
-- KEYS run, calls, results, calls_over. ARGV repeated, id, channel, hint
local expires_ms = redis.call('HGET', KEYS[1], 'expires_ms')
if not expires_ms then return {'gone'} end
redis.call('HDEL', KEYS[2], ARGV[2], 'sent:' .. ARGV[2])
redis.call('HDEL', KEYS[3], ARGV[2])
redis.call('SADD', KEYS[4], ARGV[2])
keep(KEYS[4], expires_ms)
redis.call('PUBLISH', ARGV[3], ARGV[4])
return {'ok'}
"""
)

SEND_ONCE: Final = """
-- KEYS calls. ARGV repeated, id, token. Answers ok and 1 where the call may be sent under this token.
if redis.call('HSETNX', KEYS[1], 'sent:' .. ARGV[2], ARGV[3]) == 1 then return {'ok', 1} end
return {'ok', redis.call('HGET', KEYS[1], 'sent:' .. ARGV[2]) == ARGV[3] and 1 or 0}
"""

ANNOUNCE: Final = (
    PRELUDE
    + """
-- KEYS directory. ARGV repeated, name, ttl_ms, entry
redis.call('HSET', KEYS[1], ARGV[2], whole(now_ms() + tonumber(ARGV[3])) .. ' ' .. ARGV[4])
return {'ok'}
"""
)

ANNOUNCED: Final = (
    PRELUDE
    + """
-- KEYS directory. Answers ok and every entry that has not expired; the others are removed.
local now, found = now_ms(), {'ok'}
local entries = redis.call('HGETALL', KEYS[1])
for i = 1, #entries, 2 do
  local expires_ms, entry = string.match(entries[i + 1], '^(%d+) (.*)$')
  if tonumber(expires_ms) > now then found[#found + 1] = entry
  else redis.call('HDEL', KEYS[1], entries[i]) end
end
return found
"""
)

LEAD: Final = """
-- KEYS lead, numbers. ARGV repeated, owner and token, lease_ms. Answers ok and the epoch, or `lost`.
local lead = redis.call('GET', KEYS[1])
if lead then
  local epoch, token = string.match(lead, '^(%d+) (.*)$')
  if token == ARGV[2] then return {'ok', tonumber(epoch)} end
  return {'lost'}
end
local epoch = redis.call('HINCRBY', KEYS[2], 'epoch', 1)
redis.call('SET', KEYS[1], epoch .. ' ' .. ARGV[2], 'PX', ARGV[3])
return {'ok', epoch}
"""

_LED: Final = """
local lead = redis.call('GET', KEYS[1])
if not lead or string.match(lead, '^%d+') ~= ARGV[2] then return {'lost'} end
"""

LEAD_ON: Final = (
    _LED
    + """
-- KEYS lead. ARGV repeated, epoch, lease_ms
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return {'ok'}
"""
)

RESIGN: Final = (
    _LED
    + """
-- KEYS lead. ARGV repeated, epoch
redis.call('DEL', KEYS[1])
return {'ok'}
"""
)

LEAD_PUT: Final = (
    _LED
    + """
-- KEYS lead, hash. ARGV repeated, epoch, field, value ('' removes it)
if ARGV[4] == '' then redis.call('HDEL', KEYS[2], ARGV[3])
else redis.call('HSET', KEYS[2], ARGV[3], ARGV[4]) end
return {'ok'}
"""
)

SWAP: Final = """
-- KEYS hash. ARGV repeated, field, before, after. Answers ok, or `changed`.
local now = redis.call('HGET', KEYS[1], ARGV[2])
if now == ARGV[4] then return {'ok'} end
if now ~= ARGV[3] then return {'changed'} end
redis.call('HSET', KEYS[1], ARGV[2], ARGV[4])
return {'ok'}
"""
