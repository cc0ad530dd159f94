"""The scripts of the Redis store for dead letters, and the tally that is kept of them."""

from __future__ import annotations

from guardagent.spool.redis_lua import ADD, PRELUDE, Script

__all__ = ["CENSUS", "COUNT_DEAD", "DEAD", "DISCARD", "LETTERS", "REQUEUE"]

LETTERS = """
local function letter_of(entry)
  local letter = {}
  for i = 1, #entry[2], 2 do letter[entry[2][i]] = entry[2][i + 1] end
  return letter
end

local function count(tally, letter, n)
  local reason = letter.r or 'foreign'
  local left = (tally.reasons[reason] or 0) + n
  tally.reasons[reason] = left ~= 0 and left or nil
  tally.number, tally.bytes = tally.number + n, tally.bytes + n * #(letter.f or '')
end

-- Number, bytes and reasons are kept by hand. Whoever adds or deletes letters in another way is
-- found out by their number, and all are counted again.
local function tally_of()
  local is_well, tally = pcall(cjson.decode, call('HGET', STATE, 'dead') or '')
  if is_well and tally.number == call('XLEN', DEAD) then return tally end
  tally = {number = 0, bytes = 0, reasons = {}}
  local from = '-'
  while true do
    local some = page_of(DEAD, from, '+', 1000)
    if #some == 0 then return tally end
    for _, entry in ipairs(some) do count(tally, letter_of(entry), 1) end
    from = '(' .. some[#some][1]
  end
end

local function keep(tally) redis.pcall('HSET', STATE, 'dead', cjson.encode(tally)) end

-- Return the letter, which is none any more.
local function taken(tally, id)
  local entry = call('XRANGE', DEAD, id, '+', 'COUNT', 1)[1]
  if not entry or (id ~= '-' and entry[1] ~= id) then return nil end
  call('XDEL', DEAD, entry[1])
  local letter = letter_of(entry)
  count(tally, letter, -1)
  return letter
end

local function bury(kind, frames, reason, buried_at, most, most_bytes)
  local tally = tally_of()
  for _, frame in ipairs(frames) do
    call('XADD', DEAD, '*', 'k', kind, 'r', reason, 't', buried_at, 'f', frame)
    count(tally, {r = reason, f = frame}, 1)
  end
  while tally.number > most or (tally.bytes > most_bytes and tally.number > 1) do
    if not taken(tally, '-') then break end
  end
  keep(tally)
end
"""

DEAD = Script(PRELUDE + "return page_of(DEAD, '(' .. ARGV[1], '+', tonumber(ARGV[2]))")

COUNT_DEAD = Script(PRELUDE + "return call('XLEN', DEAD)")

CENSUS = Script(
    PRELUDE
    + LETTERS
    + """
opened()
local tally, later = tally_of(), 0
for _, kind in ipairs(KINDS) do
  for _, consumer in ipairs(group_of(kind) and consumers_of(kind) or {}) do
    if consumer.later > 0 then later = later + consumer.pending end
  end
end
local reply = {string.format('%.0f', tally.bytes), later}
for reason, n in pairs(tally.reasons) do
  reply[#reply + 1] = reason
  reply[#reply + 1] = n
end
if tally.number > 0 then keep(tally) end
return reply
"""
)

REQUEUE = Script(
    PRELUDE
    + ADD
    + LETTERS
    + """
local frames, n = {events = {}, metrics = {}}, 0
opened()
local tally = tally_of()
for id in string.gmatch(ARGV[3], '%S+') do
  local entry = call('XRANGE', DEAD, id, id)[1]
  local letter = entry and letter_of(entry) or {}
  local some = frames[letter.k]
  if some and letter.f and taken(tally, id) then
    some[#some + 1], n = letter.f, n + 1
  end
end
for _, kind in ipairs(KINDS) do add(kind, frames[kind]) end
evict()
keep(tally)
return n
"""
)

DISCARD = Script(
    PRELUDE
    + LETTERS
    + """
local n, tally = 0, tally_of()
for id in string.gmatch(ARGV[1], '%S+') do
  if taken(tally, id) then n = n + 1 end
end
keep(tally)
return n
"""
)
