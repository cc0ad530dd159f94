"""The script that leases records: what ran out, then what is new, history and news by turns."""

from __future__ import annotations

from guardagent.spool.redis_lua import PRELUDE, Script

__all__ = ["CLAIM"]

CLAIM = Script(
    PRELUDE
    + """
local OWNER, LIMIT, MAX_BYTES, HEADER = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local BATCH_ID, CREATED_AT, LEASE = ARGV[5], ARGV[6], tonumber(ARGV[7])
local STALE_AT, FORGET_AFTER = tonumber(ARGV[8]), tonumber(ARGV[9])
-- What the claimer has in hand already: it is not leased to it again.
local HELD = {events = {}, metrics = {}}
for i, kind in ipairs(KINDS) do
  for id in string.gmatch(ARGV[9 + i], '%S+') do HELD[kind][id] = true end
end
local generation = opened()

local function fitting(kind, span)
  local fits, room = {}, MAX_BYTES
  local some = call('XRANGE', STREAMS[kind], '(' .. span[1], span[2], 'COUNT', LIMIT)
  for i, entry in ipairs(some) do
    room = room - (#frame_of(entry) - HEADER + 1)
    if room < 0 and i > 1 then break end
    fits[i] = entry
  end
  return fits
end

-- The lease that begins at this record, as it was made, if its name is known still.
local function take(kind, first, holder)
  local key, field = STREAMS[kind], kind .. ':' .. first
  local last, size, name, created_at
  local named = call('HGET', BATCHES, field)
  if named then
    last, size, name, created_at = string.match(named, '^(%S+) (%d+) (%S+) ([%d.e+]+)$')
  end
  if not size or tonumber(size) < 1 or not tonumber(created_at) then
    name, last = nil, nil
    local average = math.max(1, bytes_of(kind) / math.max(1, call('XLEN', key)))
    size = math.min(LIMIT, math.max(1, math.floor(MAX_BYTES / average)))
  end
  local ids, entries, found = {}, {}, {}
  local late = call('XPENDING', key, GROUP, 'IDLE', LEASE, first, last or '+', size, holder)
  for _, one in ipairs(late) do
    if not HELD[kind][one[1]] then ids[#ids + 1] = one[1] end
  end
  for _, some in ipairs(in_slices(ids, {'XCLAIM', key, GROUP, OWNER, LEASE})) do
    for _, entry in ipairs(some) do
      if entry then  -- before 7.0 there is false where a record was deleted
        entries[#entries + 1] = entry
        found[entry[1]] = true
      end
    end
  end
  if #entries < #ids then
    local missing = {}
    for _, id in ipairs(ids) do if not found[id] then missing[#missing + 1] = id end end
    in_slices(missing, {'XACK', key, GROUP})
  end
  if #entries == 0 then
    call('HDEL', BATCHES, field)
    return nil
  end
  if #entries ~= tonumber(size) then name = nil end
  return {kind, entries, name or '', name and created_at or ''}
end

local function take_over()
  for _, kind in ipairs(KINDS) do
    local from = '-'
    for _ = 1, 100 do
      local late = call('XPENDING', STREAMS[kind], GROUP, 'IDLE', LEASE, from, '+', 100)
      for _, one in ipairs(late) do
        local taken = not HELD[kind][one[1]] and take(kind, one[1], one[2])
        if taken then return taken end
      end
      if #late < 100 then break end
      from = '(' .. late[#late][1]
    end
  end
end

local function lease_history(kind, entries, high)
  local ids = {}
  for i, entry in ipairs(entries) do ids[i] = entry[1] end
  in_slices(ids, {'XCLAIM', STREAMS[kind], GROUP, OWNER, 0}, {'FORCE', 'JUSTID'})
  call('HSET', STATE, kind .. ':low', ids[#ids], kind .. ':high', high, kind .. ':turn', 'news')
end

local function lease_news(kind, entries)
  call('XREADGROUP', 'GROUP', GROUP, OWNER, 'COUNT', #entries, 'STREAMS', STREAMS[kind], '>')
end

local function take_new(kind, spans, group)
  local key, entries = STREAMS[kind], fitting(kind, spans[1])
  if #spans == 2 then
    local turn = #entries == 0 or call('HGET', STATE, kind .. ':turn') == 'news'
    local news = turn and fitting(kind, spans[2]) or {}
    if #entries == 0 then
      call('HDEL', STATE, kind .. ':low', kind .. ':high', kind .. ':turn')
    elseif #news > 0 then
      lease_news(kind, news)
      call('HSET', STATE, kind .. ':turn', 'history')
    else
      lease_history(kind, entries, spans[1][2])
      return entries
    end
    if #entries == 0 and #news > 0 then lease_news(kind, news) end
    return news
  end
  if made_at(entries[1]) < STALE_AT and call('XLEN', key) - group.pending > 4 * LIMIT then
    local high = call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1][1]
    call('XGROUP', 'SETID', key, GROUP, high)
    lease_history(kind, entries, high)
  else
    lease_news(kind, entries)
  end
  return entries
end

local function take_oldest()
  local best, best_at, spans, group
  for _, kind in ipairs(KINDS) do
    local some, its_group = spans_of(kind)
    local head = next_of(kind, some, 1)[1]
    if head and (not best or made_at(head) < best_at) then
      best, best_at, spans, group = kind, made_at(head), some, its_group
    end
  end
  if not best then return nil end
  local entries = take_new(best, spans, group)
  local first, last = entries[1][1], entries[#entries][1]
  local name = string.format('%s %d %s %s', last, #entries, BATCH_ID, CREATED_AT)
  call('HSET', BATCHES, best .. ':' .. first, name)
  return {best, entries, '', ''}
end

-- Consumers of processes that ended long ago.
local function forget_consumers(now)
  local last = tonumber(call('HGET', STATE, 'tidied')) or 0
  if now - last < FORGET_AFTER / 6 then return end
  for _, kind in ipairs(KINDS) do
    for i, one in ipairs(call('XINFO', 'CONSUMERS', STREAMS[kind], GROUP)) do
      local consumer = {}
      for k = 1, #one, 2 do consumer[one[k]] = one[k + 1] end
      if consumer.pending == 0 and consumer.idle > FORGET_AFTER and i <= 1000 then
        call('XGROUP', 'DELCONSUMER', STREAMS[kind], GROUP, consumer.name)
      end
    end
  end
  redis.pcall('HSET', STATE, 'tidied', now)
end

if not (group_of('events') and group_of('metrics')) then generation = begin() end
-- One look for leases that ran out, in every quarter of a lease, is enough for all processes
-- together; as long as some are found the next claim looks again.
local now = now_ms()
local elapsed = now - (tonumber(call('HGET', STATE, 'swept')) or 0)
local is_due = elapsed < 0 or elapsed >= LEASE / 4
local taken = is_due and take_over()
local has_swept = is_due and not taken
taken = taken or take_oldest()
if has_swept then
  redis.pcall('HSET', STATE, 'swept', now)
  forget_consumers(now)
end
if not taken then return with_depth(generation, {'', '', '', '', '', ''}) end
local ids, lengths, blob = packed(taken[2])
return with_depth(generation, {taken[1], ids, lengths, blob, taken[3], taken[4]})
"""
)
