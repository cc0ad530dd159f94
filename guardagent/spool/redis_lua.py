"""What the scripts of the Redis store have in common: the keys, the group, the counters.

Keys, all with one hash tag: the streams `events` and `metrics`, each with the consumer group
"agents"; the hash `state` (generation, bytes of each stream, divides, times of the rounds); the
stream `dead`; the hash `batches` (names of leased batches by their first record); the hash `kept`.

The number of records is a stream's length, a lease is an entry of the group's pending list, and its
owner's name is the consumer's. A stream's ids come from the server's clock, so that none is used
twice, not even after a failover that lost the newest ones.

A server out of memory refuses only the first write of a script, so the scripts that make room write
first what is never refused: a full server can always be drained.
"""

from __future__ import annotations

from hashlib import sha1

import attrs

__all__ = ["ADD", "PRELUDE", "Script"]


@attrs.frozen
class Script:
    """A script and the digest by which the server knows it once it has seen it."""

    text: str
    digest: str = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        digest = sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "digest", digest)


PRELUDE = """
local STATE, DEAD, BATCHES, KEPT = KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local KINDS, STREAMS, GROUP = {'events', 'metrics'}, {events = KEYS[1], metrics = KEYS[2]}, 'agents'
local call = redis.call
local PAGE_BYTES, VERSION = 1048576, 1

-- A foreign entry is shown as a frame of no version, and takes up no bytes of the bound.
local function frame_of(entry)
  local fields = entry[2]
  if fields[1] == 'f' and not fields[3] then return fields[2], #fields[2] end
  return '\\0' .. table.concat(fields, ' '), 0
end

local function made_at(entry)
  local frame = frame_of(entry)
  if #frame < 13 or string.byte(frame) ~= VERSION then return math.huge end
  local moment = struct.unpack('>d', frame, 2)
  if moment ~= moment then return math.huge end
  return moment
end

-- The version of a frame that only a later release can read; 0 of any other (see `frame`).
local function later_version(entry)
  local version = string.byte((frame_of(entry))) or 0
  return version > VERSION and version <= 15 and version or 0
end

local function now_ms()
  local time = call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- A call with any number of arguments: unpack takes 8,000 at most.
local function in_slices(ids, before, after)
  local results = {}
  for start = 1, #ids, 1000 do
    local args = {unpack(before)}
    for i = start, math.min(start + 999, #ids) do args[#args + 1] = ids[i] end
    for _, one in ipairs(after or {}) do args[#args + 1] = one end
    results[#results + 1] = call(unpack(args))
  end
  return results
end

local function group_of(kind)
  for _, one in ipairs(call('XINFO', 'GROUPS', STREAMS[kind])) do
    local group = {}
    for i = 1, #one, 2 do group[one[i]] = one[i + 1] end
    if group.name == GROUP then return group end
  end
end

local function consumers_of(kind)
  local consumers = {}
  for i, one in ipairs(call('XINFO', 'CONSUMERS', STREAMS[kind], GROUP)) do
    consumers[i] = {}
    for k = 1, #one, 2 do consumers[i][one[k]] = one[k + 1] end
    consumers[i].later = tonumber(string.match(consumers[i].name, '^later%-(%d+)$')) or 0
  end
  return consumers
end

local function begin()
  local time = call('TIME')
  local generation = time[1] .. '.' .. time[2]
  call('DEL', STATE, BATCHES)
  for _, kind in ipairs(KINDS) do
    redis.pcall('XGROUP', 'CREATE', STREAMS[kind], GROUP, '0', 'MKSTREAM')
    local some, size = call('XRANGE', STREAMS[kind], '-', '+', 'COUNT', 100), 0
    for _, entry in ipairs(some) do size = size + select(2, frame_of(entry)) end
    if #some > 0 then size = math.floor(size / #some * call('XLEN', STREAMS[kind])) end
    call('HSET', STATE, kind .. ':bytes', string.format('%.0f', size))
    -- A group that was there has gone ahead, perhaps past history that only the state knew of.
    local last = group_of(kind)['last-delivered-id']
    if last ~= '0-0' then call('HSET', STATE, kind .. ':low', '0-0', kind .. ':high', last) end
  end
  call('HSET', STATE, 'generation', generation)
  return generation
end

local function opened()
  local generation = call('HGET', STATE, 'generation')
  if generation and call('EXISTS', KEYS[1], KEYS[2]) == 2 then return generation end
  return begin()
end

local function bytes_of(kind)
  return math.max(0, tonumber(call('HGET', STATE, kind .. ':bytes')) or 0)
end

local function totals()
  local records, bytes = 0, 0
  for _, kind in ipairs(KINDS) do
    local length = call('XLEN', STREAMS[kind])
    records = records + length
    if length > 0 then bytes = bytes + bytes_of(kind) end
  end
  return records, bytes
end

local function with_depth(generation, reply)
  local records, bytes = totals()
  reply[#reply + 1] = records
  reply[#reply + 1] = bytes
  reply[#reply + 1] = generation
  return reply
end

-- Records leave the stream, and their leases with them.
local function forget(kind, ids, size)
  if #ids == 0 then return 0 end
  local gone = 0
  for _, n in ipairs(in_slices(ids, {'XDEL', STREAMS[kind]})) do gone = gone + n end
  if call('XLEN', STREAMS[kind]) == 0 then
    call('HSET', STATE, kind .. ':bytes', 0)
  elseif size > 0 then
    call('HINCRBY', STATE, kind .. ':bytes', string.format('%.0f', -size))
  end
  return gone
end

-- What nobody has leased yet, as pairs: behind the first id, up to the second. Usually that is all
-- behind the group's last id. While a long backlog drains, the group has gone ahead to the news,
-- and history lies between `low` and `high`, perhaps with leases of former news within it.
local function spans_of(kind)
  local group = group_of(kind)
  if not group then return {} end
  local divide = call('HMGET', STATE, kind .. ':low', kind .. ':high')
  local spans = {{group['last-delivered-id'], '+'}}
  if divide[1] then table.insert(spans, 1, {divide[1], divide[2]}) end
  return spans
end

-- Entries of a stream, at most so many and of about so many bytes: the server does nothing else
-- while it copies them.
local function page_of(key, from, to, count, room)
  local found, step = {}, 1
  local size, most = 0, room or PAGE_BYTES
  while #found < count and size < most do
    local some = call('XRANGE', key, from, to, 'COUNT', math.min(step, count - #found))
    if #some == 0 then break end
    for _, entry in ipairs(some) do
      for _, field in ipairs(entry[2]) do size = size + #field end
      found[#found + 1] = entry
    end
    from = '(' .. some[#some][1]
    step = math.min(2 * step, math.max(1, math.floor((most - size) / (size / #found))))
  end
  return found
end

-- The first of a span that nobody has leased, up to the next lease.
local function waiting(kind, span, count, room)
  local key, from = STREAMS[kind], '(' .. span[1]
  while true do
    local some = count == 1 and call('XRANGE', key, from, span[2], 'COUNT', 1)
      or page_of(key, from, span[2], count, room)
    if #some == 0 or span[2] == '+' then return some end
    local leased, free = {}, {}
    local last = some[#some][1]
    for _, one in ipairs(call('XPENDING', key, GROUP, some[1][1], last, #some)) do
      leased[one[1]] = true
    end
    for _, entry in ipairs(some) do
      if not leased[entry[1]] then free[#free + 1] = entry elseif #free > 0 then break end
    end
    if #free > 0 then return free end
    from = '(' .. last
  end
end

local function next_of(kind, spans, count)
  for _, span in ipairs(spans) do
    local some = waiting(kind, span, count)
    if #some > 0 then return some end
  end
  return {}
end

-- The ids of those records that the owner holds: a lease may have been taken over meanwhile.
local function held(kind, runs, owner)
  local ids = {}
  for first, last in string.gmatch(runs, '(%S+) (%S+)') do
    local some = redis.pcall('XPENDING', STREAMS[kind], GROUP, first, last, 100000, owner)
    if not some.err then
      for _, one in ipairs(some) do ids[#ids + 1] = one[1] end
    end
  end
  return ids
end

-- Ids, lengths and one string instead of a reply for each record, which would cost clients most.
local function packed(entries)
  local ids, lengths, frames = {}, {}, {}
  for i, entry in ipairs(entries) do
    ids[i], frames[i] = entry[1], (frame_of(entry))
    lengths[i] = #frames[i]
  end
  return table.concat(ids, ' '), table.concat(lengths, ' '), table.concat(frames)
end
"""

ADD = """
local MAX_RECORDS, MAX_BYTES = tonumber(ARGV[1]), tonumber(ARGV[2])

local function add(kind, frames)
  local first, last, size = '', '', 0
  for _, frame in ipairs(frames) do
    last = call('XADD', STREAMS[kind], '*', 'f', frame)
    if first == '' then first = last end
    size = size + #frame
  end
  if size > 0 then call('HINCRBY', STATE, kind .. ':bytes', size) end
  return first, last
end

-- The oldest that nobody holds give way, a hundred at a time.
local function evict_some(over, over_bytes)
  local oldest, entries, other_at = nil, nil, math.huge
  for _, kind in ipairs(KINDS) do
    local some = next_of(kind, spans_of(kind), 100)
    if #some > 0 then
      local moment = made_at(some[1])
      if not oldest or moment < made_at(entries[1]) then
        if oldest then other_at = made_at(entries[1]) end
        oldest, entries = kind, some
      else
        other_at = moment
      end
    end
  end
  if not oldest then return 0 end
  local ids, size = {}, 0
  for i, entry in ipairs(entries) do
    local enough = #ids >= over and size >= over_bytes
    if enough or (i > 1 and made_at(entry) > other_at) then break end
    ids[i], size = entry[1], size + select(2, frame_of(entry))
  end
  return forget(oldest, ids, size)
end

local function evict()
  local lost = 0
  if MAX_RECORDS == 0 then return lost end
  for _ = 1, 100 do
    local records, bytes = totals()
    if records <= MAX_RECORDS and bytes <= MAX_BYTES then break end
    local gone = evict_some(records - MAX_RECORDS, bytes - MAX_BYTES)
    if gone == 0 then break end
    lost = lost + gone
  end
  return lost
end
"""
