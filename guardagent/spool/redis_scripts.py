"""The operations of the Redis store, as scripts that the server runs whole or not at all."""

from __future__ import annotations

from guardagent.spool.redis_claim import CLAIM
from guardagent.spool.redis_dead import CENSUS, COUNT_DEAD, DEAD, DISCARD, LETTERS, REQUEUE
from guardagent.spool.redis_lua import ADD, PRELUDE, Script

__all__ = [
    "APPEND",
    "CENSUS",
    "CLAIM",
    "COUNT_DEAD",
    "DEAD",
    "DEPTH",
    "DISCARD",
    "EXPIRE",
    "EXTENT",
    "GET",
    "HOLDS",
    "LEAVE",
    "OLDEST",
    "PURGE",
    "PUT",
    "RENEW",
    "REQUEUE",
    "SETTLE",
    "WAITING",
    "Script",
]

APPEND = Script(
    PRELUDE
    + ADD
    + """
local generation, reply = opened(), {0}
for i, kind in ipairs(KINDS) do
  local blob, frames, at = ARGV[2 + 2 * i], {}, 1
  for length in string.gmatch(ARGV[1 + 2 * i], '%d+') do
    frames[#frames + 1] = string.sub(blob, at, at + length - 1)
    at = at + length
  end
  reply[2 * i], reply[2 * i + 1] = add(kind, frames)
end
reply[1] = evict()
return with_depth(generation, reply)
"""
)

SETTLE = Script(
    PRELUDE
    + LETTERS
    + """
local kind, runs, reason, buried_at = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local key, ids, frames, total = STREAMS[kind], {}, {}, 0
local generation = opened()
for first, last in string.gmatch(runs, '(%S+) (%S+)') do
  call('HDEL', BATCHES, kind .. ':' .. first)
  for _, entry in ipairs(call('XRANGE', key, first, last)) do
    local frame, size = frame_of(entry)
    ids[#ids + 1], total = entry[1], total + size
    if reason ~= '' then frames[#frames + 1] = frame end
  end
end
in_slices(ids, {'XACK', key, GROUP})
local gone = forget(kind, ids, total)
if #frames > 0 then bury(kind, frames, reason, buried_at, tonumber(ARGV[5]), tonumber(ARGV[6])) end
return with_depth(generation, {gone})
"""
)

RENEW = Script(
    PRELUDE
    + """
local owner, receiver, idle, found = ARGV[1], ARGV[2], ARGV[3], {}
local generation = opened()
for i, kind in ipairs(KINDS) do
  local ids = held(kind, ARGV[3 + i], owner)
  in_slices(ids, {'XCLAIM', STREAMS[kind], GROUP, receiver, 0}, {'IDLE', idle, 'JUSTID'})
  found[i] = table.concat(ids, ' ')
end
if receiver ~= owner then call('HDEL', STATE, 'swept') end
return with_depth(generation, found)
"""
)

EXPIRE = Script(
    PRELUDE
    + """
local generation, before, gone, left = opened(), tonumber(ARGV[1]), 0, 10

-- The front of a span; true when there may be more.
local function expire(kind, span)
  local some = waiting(kind, span, 1)
  local moment = some[1] and made_at(some[1])
  if not moment or (moment >= before and moment < math.huge) then return false end
  some = waiting(kind, span, 500)
  local ids, total = {}, 0
  for _, entry in ipairs(some) do
    local moment = made_at(entry)
    -- One that cannot be told is left, and hides none behind it.
    if moment < before then
      ids[#ids + 1], total = entry[1], total + select(2, frame_of(entry))
    elseif moment < math.huge then
      some = {}
      break
    end
  end
  gone = gone + forget(kind, ids, total)
  if #some > 0 then span[1] = some[#some][1] end
  return #some > 0
end

for _, kind in ipairs(KINDS) do
  for _, span in ipairs(spans_of(kind)) do
    while left > 0 and expire(kind, span) do left = left - 1 end
  end
end
return with_depth(generation, {gone, left})
"""
)

DEPTH = Script(PRELUDE + "return with_depth(opened(), {})")

OLDEST = Script(
    PRELUDE
    + """
local reply = {}
for _, kind in ipairs(KINDS) do
  for _, entry in ipairs(call('XRANGE', STREAMS[kind], '-', '+', 'COUNT', 1)) do
    reply[#reply + 1] = (frame_of(entry))
  end
end
return reply
"""
)

HOLDS = Script(PRELUDE + "return #call('XRANGE', STREAMS[ARGV[1]], ARGV[2], ARGV[3], 'COUNT', 1)")

EXTENT = Script(
    PRELUDE
    + """
local reply = {}
for _, kind in ipairs(KINDS) do
  for _, end_ in ipairs({{'XRANGE', '-', '+'}, {'XREVRANGE', '+', '-'}}) do
    local some = call(end_[1], STREAMS[kind], end_[2], end_[3], 'COUNT', 1)
    reply[#reply + 1] = some[1] and some[1][1] or ''
  end
end
return reply
"""
)

GET = Script(PRELUDE + "return call('HGET', KEPT, ARGV[1])")

PUT = Script(PRELUDE + "return call('HSET', KEPT, ARGV[1], ARGV[2])")

WAITING = Script(
    PRELUDE
    + """
return {packed(page_of(STREAMS[ARGV[1]], '(' .. ARGV[2], '+', tonumber(ARGV[3])))}
"""
)

PURGE = Script(
    PRELUDE
    + """
opened()
local records = totals()
for _, kind in ipairs(KINDS) do
  call('XTRIM', STREAMS[kind], 'MAXLEN', 0)
  call('XGROUP', 'DESTROY', STREAMS[kind], GROUP)
  call('XGROUP', 'CREATE', STREAMS[kind], GROUP, '$')
  call('HDEL', STATE, kind .. ':low', kind .. ':high', kind .. ':turn')
  call('HSET', STATE, kind .. ':bytes', 0)
end
call('DEL', BATCHES)
return records
"""
)

#: Deleting a consumer would delete its leases, too.
LEAVE = Script(
    PRELUDE
    + """
for _, kind in ipairs(KINDS) do
  local leases = redis.pcall('XPENDING', STREAMS[kind], GROUP, '-', '+', 1, ARGV[1])
  if not leases.err and #leases == 0 then
    call('XGROUP', 'DELCONSUMER', STREAMS[kind], GROUP, ARGV[1])
  end
end
return 1
"""
)
