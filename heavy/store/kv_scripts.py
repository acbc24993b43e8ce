"""The Lua scripts of KV reservations: each one atomic step over the hash of one replica, or of several.

They keep the rules of `heavy.store.scripts`.
"""

from __future__ import annotations

from typing import Final

from heavy.store.scripts import PRELUDE

_HELD: Final = (
    PRELUDE
    + """
-- One replica's hash: a field a generation, 'expires taken shared own fresh leads group'; a field 'g:GROUP',
-- 'expires shared', for an opening that the replica has prefilled; and for a while a field 'e:HOLDER',
-- 'expires ended own', for a generation that has ended. What has expired is removed.
local ENDED_KEPT_MS = 2000  -- longer than a load report is old
local function entry(text)
  local e = {string.match(text, '^(%d+) (%d+) (%d+) (%d+) (%d+) (%d) (.*)$')}
  for i = 1, 6 do e[i] = tonumber(e[i]) end
  return e
end
local function held(key, now, old_ms, asked)
  local sum = {tokens = 0, count = 0, young = 0, young_count = 0, ahead = 0, warm = 0, led = 0,
               gone = 0, gone_count = 0}
  local groups, fields = {}, redis.call('HGETALL', key)
  for i = 1, #fields, 2 do
    local name, text = fields[i], fields[i + 1]
    if tonumber(string.match(text, '^%d+')) <= now then redis.call('HDEL', key, name)
    elseif string.sub(name, 1, 2) == 'g:' then
      if name == 'g:' .. asked then
        sum.warm = math.max(sum.warm, tonumber(string.match(text, '%d+$')))
      end
    elseif string.sub(name, 1, 2) == 'e:' then
      local ended, own = string.match(text, '^%d+ (%d+) (%d+)$')
      if now - tonumber(ended) < old_ms then
        sum.gone_count, sum.gone = sum.gone_count + 1, sum.gone + tonumber(own)
      end
    else
      local _, taken, shared, own, fresh, leads, group = unpack(entry(text))
      local young = now - taken < old_ms
      sum.count, sum.tokens = sum.count + 1, sum.tokens + own
      if young then sum.young_count, sum.young = sum.young_count + 1, sum.young + own end
      if group ~= asked then sum.ahead = sum.ahead + fresh
      elseif leads == 1 then sum.led = 1
      else sum.warm = math.max(sum.warm, shared) end
      local seen = groups[group] or {0, true}
      groups[group] = {math.max(seen[1], shared), seen[2] and young}
    end
  end
  for _, seen in pairs(groups) do
    sum.tokens = sum.tokens + seen[1]
    if seen[2] then sum.young = sum.young + seen[1] end
  end
  sum.shared = (groups[asked] or {0})[1]
  return sum
end
local function stay(key, ttl_ms)
  if redis.call('PTTL', key) < ttl_ms then redis.call('PEXPIRE', key, ttl_ms) end
end
"""
)

KV_HELD: Final = (
    _HELD
    + """
-- KEYS one hash a replica. ARGV repeated, age of a report in ms, group. Answers ok and nine numbers a key.
local found, now = {'ok'}, now_ms()
for _, key in ipairs(KEYS) do
  local sum = held(key, now, tonumber(ARGV[2]), ARGV[3])
  local names = {'tokens', 'count', 'young', 'young_count', 'gone', 'gone_count', 'ahead', 'warm', 'led'}
  for _, name in ipairs(names) do
    found[#found + 1] = sum[name]
  end
end
return found
"""
)

KV_TAKE: Final = (
    _HELD
    + """
-- KEYS hash. ARGV repeated, holder, ttl_ms, tokens_max (0: any), count_max, group, shared, own, fresh, leads.
-- Answers ok, or `warm` where it would have led and need not; `led`: somebody else is prefilling the group's
-- opening here; `full`. One that is larger than the whole is let in alone.
local key, now = KEYS[1], now_ms()
if ARGV[1] == '1' then redis.call('HDEL', key, ARGV[2]) end
local sum = held(key, now, 0, ARGV[6])
local shared, leads = tonumber(ARGV[7]), ARGV[10]
if leads == '1' and sum.led == 1 then return {'led'} end
local answer = 'ok'
if leads == '1' and sum.warm >= shared then answer, leads = 'warm', '0' end
local more = tonumber(ARGV[8]) + math.max(0, shared - sum.shared)
local most = tonumber(ARGV[4])
if sum.count >= tonumber(ARGV[5]) then return {'full'} end
if most > 0 and sum.count > 0 and sum.tokens + more > most then return {'full'} end
redis.call('HSET', key, ARGV[2], table.concat(
  {whole(now + tonumber(ARGV[3])), whole(now), ARGV[7], ARGV[8], ARGV[9], leads, ARGV[6]}, ' '))
stay(key, tonumber(ARGV[3]))
return {answer}
"""
)

KV_BEGAN: Final = (
    _HELD
    + """
-- KEYS hash. ARGV repeated, holder, warm_ms, channel, hint. Its prompt is prefilled: who waits may come.
local text = redis.call('HGET', KEYS[1], ARGV[2])
if not text then return {'ok'} end
local e, now = entry(text), now_ms()
redis.call('HSET', KEYS[1], ARGV[2],
  table.concat({whole(e[1]), whole(e[2]), whole(e[3]), whole(e[4]), 0, 0, e[7]}, ' '))
redis.call('HSET', KEYS[1], 'g:' .. e[7], whole(now + tonumber(ARGV[3])) .. ' ' .. whole(e[3]))
stay(KEYS[1], tonumber(ARGV[3]))
redis.call('PUBLISH', ARGV[4], ARGV[5])
return {'ok'}
"""
)

KV_KEEP: Final = (
    _HELD
    + """
-- KEYS hash. ARGV repeated, ttl_ms, holder, ... What was given back or has expired stays so.
local now = now_ms()
for i = 3, #ARGV do
  local text = redis.call('HGET', KEYS[1], ARGV[i])
  if text and tonumber(string.match(text, '^%d+')) > now then
    redis.call('HSET', KEYS[1], ARGV[i], whole(now + tonumber(ARGV[2])) .. string.match(text, ' .*$'))
    stay(KEYS[1], tonumber(ARGV[2]))
  end
end
return {'ok'}
"""
)

KV_GIVE_BACK: Final = (
    _HELD
    + """
-- KEYS hash. ARGV repeated, holder, channel, hint. Who waits for a prefill that will not come is told.
local text = redis.call('HGET', KEYS[1], ARGV[2])
if not text then return {'ok'} end
local e, now = entry(text), now_ms()
redis.call('HDEL', KEYS[1], ARGV[2])
redis.call('HSET', KEYS[1], 'e:' .. ARGV[2],
  table.concat({whole(now + ENDED_KEPT_MS), whole(now), whole(e[4])}, ' '))
stay(KEYS[1], ENDED_KEPT_MS)
if e[6] == 1 then redis.call('PUBLISH', ARGV[3], ARGV[4]) end
return {'ok'}
"""
)
