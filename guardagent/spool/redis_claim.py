"""The script that leases records: what ran out, then what is new, history and news by turns."""

from __future__ import annotations

from guardagent.spool.redis_lua import PRELUDE, Script

__all__ = ["CLAIM"]

CLAIM = Script(
    PRELUDE
    + """
local OWNER, LIMIT, MAX_BYTES, HEADER = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local BATCH_ID, CREATED_AT, LEASE = ARGV[5], ARGV[6], tonumber(ARGV[7])
local NOW, STALE_AFTER, FORGET_AFTER = tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])
-- What the claimer has in hand already: it is not leased to it again.
local HELD = {events = {}, metrics = {}}
for i, kind in ipairs(KINDS) do
  for id in string.gmatch(ARGV[10 + i], '%S+') do HELD[kind][id] = true end
end
local generation = opened()

local function fitting(kind, span)
  local fits, room = {}, MAX_BYTES
  -- An entry is larger than what it adds to a batch.
  for i, entry in ipairs(waiting(kind, span, LIMIT, MAX_BYTES + LIMIT * (HEADER + 1))) do
    room = room - (#frame_of(entry) - HEADER + 1)
    if i > 1 and (room < 0 or later_version(entry) ~= later_version(fits[1])) then break end
    fits[i] = entry
  end
  return fits
end

-- How many records go into a claim, to judge by what there is.
local function claim_size(kind)
  local average = math.max(1, bytes_of(kind) / math.max(1, call('XLEN', STREAMS[kind])))
  return math.min(LIMIT, math.max(1, math.floor(MAX_BYTES / average)))
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
    name, last, size = nil, nil, claim_size(kind)
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

local function take_over_from(kind, holder)
  local from = '-'
  for _ = 1, 100 do
    local late = call('XPENDING', STREAMS[kind], GROUP, 'IDLE', LEASE, from, '+', 100, holder)
    for _, one in ipairs(late) do
      local taken = not HELD[kind][one[1]] and take(kind, one[1], holder)
      if taken then return taken end
    end
    if #late < 100 then return nil end
    from = '(' .. late[#late][1]
  end
end

local function take_over()
  for _, kind in ipairs(KINDS) do
    for _, consumer in ipairs(consumers_of(kind)) do
      local is_ours = consumer.pending > 0 and consumer.later <= VERSION
      local taken = is_ours and take_over_from(kind, consumer.name)
      if taken then return taken end
    end
  end
end

local function ms_of(entry) return tonumber(string.match(entry[1], '^%d+')) end

-- The id before which all is history: made of what has grown old among the news, if that is much.
local function divide_of(kind, span)
  local key, much = STREAMS[kind], 4 * claim_size(kind)
  local oldest = call('XLEN', key) > much and waiting(kind, span, 1)[1]
  if not oldest or made_at(oldest) >= NOW - STALE_AFTER then return nil end
  local newest = call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1]
  local low, high = ms_of(oldest), ms_of(newest) + 1
  while high - low > 1 do  -- what came in the millisecond `high` or later is young
    local middle = math.floor((low + high) / 2)
    local some = call('XRANGE', key, string.format('%.0f', middle), '+', 'COUNT', 1)
    -- Half as old is young: so a divide holds for a while before the next one is drawn.
    if some[1] and made_at(some[1]) < NOW - STALE_AFTER / 2 then low = middle else high = middle end
  end
  local divide = string.format('%.0f-18446744073709551615', high - 1)
  local old = call('XRANGE', key, '(' .. span[1], divide, 'COUNT', much + 1)
  return #old > much and divide
end

local function lease(kind, entries, is_history)
  local key, ids = STREAMS[kind], {}
  for i, entry in ipairs(entries) do ids[i] = entry[1] end
  if is_history then
    in_slices(ids, {'XCLAIM', key, GROUP, OWNER, 0}, {'FORCE', 'JUSTID'})
  else
    call('XREADGROUP', 'GROUP', GROUP, OWNER, 'COUNT', #entries, 'STREAMS', key, '>')
  end
  local version = later_version(entries[1])
  if version > 0 then  -- held by nobody, and for longer than any lease
    local holder = 'later-' .. version
    in_slices(ids, {'XCLAIM', key, GROUP, holder, 0}, {'IDLE', 604800000, 'JUSTID'})
    call('HDEL', STATE, 'swept')
  end
end

local function take_new(kind, fresh)
  local spans = spans_of(kind)
  local divide = divide_of(kind, spans[#spans])
  if divide then
    call('XGROUP', 'SETID', STREAMS[kind], GROUP, divide)
    spans = {{spans[1][1], divide}, {divide, '+'}}
  end
  local i = fresh and #spans or 1
  local entries = fitting(kind, spans[i])
  if #entries == 0 then
    i = 3 - i
    entries = fitting(kind, spans[i])
  end
  lease(kind, entries, i < #spans)
  local low, high, turn = kind .. ':low', kind .. ':high', 'turn'
  if #spans == 2 and i == 2 and not fresh then
    call('HDEL', STATE, low, high, turn)  -- history has come to its end
  elseif #spans == 2 then
    local last = i == 1 and entries[#entries][1] or spans[1][1]
    call('HSET', STATE, low, last, high, spans[1][2], turn, i == 1 and 'news' or 'history')
  elseif fresh then
    call('HSET', STATE, turn, 'history')
  end
  return entries
end

-- The kind of which something waits longest, or news do.
local function oldest_kind(fresh)
  local best, best_at
  for _, kind in ipairs(KINDS) do
    local spans = spans_of(kind)
    local head = next_of(kind, fresh and {spans[#spans]} or spans, 1)[1]
    if head and (not best or made_at(head) < best_at) then best, best_at = kind, made_at(head) end
  end
  return best
end

local skipped = 0

local function take_oldest()
  local kind, entries
  for _ = 1, 20 do
    local fresh = call('HGET', STATE, 'turn') == 'news'
    kind = oldest_kind(fresh) or (fresh and oldest_kind(false))
    if not kind then return nil end
    entries = take_new(kind, fresh)
    if later_version(entries[1]) == 0 then break end
    skipped = skipped + #entries
    entries = nil
  end
  if not entries then return nil end
  local first, last = entries[1][1], entries[#entries][1]
  local name = string.format('%s %d %s %s', last, #entries, BATCH_ID, CREATED_AT)
  call('HSET', BATCHES, kind .. ':' .. first, name)
  return {kind, entries, '', ''}
end

-- Consumers of processes that ended long ago.
local function forget_consumers(now)
  local last = tonumber(call('HGET', STATE, 'tidied')) or 0
  if now - last < FORGET_AFTER / 6 then return end
  for _, kind in ipairs(KINDS) do
    for i, consumer in ipairs(consumers_of(kind)) do
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
if not taken then return with_depth(generation, {skipped, '', '', '', '', '', ''}) end
local ids, lengths, blob = packed(taken[2])
return with_depth(generation, {skipped, taken[1], ids, lengths, blob, taken[3], taken[4]})
"""
)
