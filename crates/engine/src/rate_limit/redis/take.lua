-- Takes one request from each of some sliding logs, if its quota has any left.
--
-- KEYS     the logs; one alone wherever they may lie on several nodes
-- ARGV     of each: limit, period in us, grain in us (0: each request counts at its own moment;
--          otherwise at the end of its grain, so that a large limit needs few marks)
-- answers  of each: admitted (1 or 0), remaining, us until there is more; or why it cannot be counted,
--          which keeps no other from it
--
-- A log is one string: how many were admitted before its first mark (5 bytes), then marks of 12
-- bytes, oldest first: a moment in us (7 bytes), and how many were admitted up to and with it (5).
-- A refusal writes nothing.
local HEAD, MARK = 5, 12
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local function take(key, limit, period, grain)
  local ttl = math.ceil((period + grain) / 1000) + 1
  local at = now
  if grain > 0 then at = (math.floor(now / grain) + 1) * grain end

  local log = redis.call('GET', key) or struct.pack('>I5', 0)
  local before, marks = struct.unpack('>I5', log), (#log - HEAD) / MARK
  local function mark(i) return struct.unpack('>I7I5', log, HEAD + i * MARK + 1) end

  -- The clock went back, by an operator or a failover: keep the distances and let the newest mark be
  -- now, so that nobody waits longer than a period.
  if marks > 0 and mark(marks - 1) > at then
    local back, moved = mark(marks - 1) - at, {}
    for i = 0, marks - 1 do
      local moment, total = mark(i)
      moved[i + 1] = struct.pack('>I7I5', math.max(moment - back, 0), total)
    end
    log = string.sub(log, 1, HEAD) .. table.concat(moved)
    redis.call('SET', key, log, 'PX', ttl)
  end

  -- The first mark that has not left the window.
  local first, stop = 0, marks
  if marks > 0 and mark(0) + period > now then stop = 0 end
  while first < stop do
    local middle = math.floor((first + stop) / 2)
    if mark(middle) + period <= now then first = middle + 1 else stop = middle end
  end

  local total, _ = 0
  if first == marks then
    before = 0
  else
    if first > 0 then _, before = mark(first - 1) end
    _, total = mark(marks - 1)
  end
  local count, admitted = total - before, 0
  if count < limit then
    admitted, count, total = 1, count + 1, total + 1
    local kept = marks
    if first < marks and mark(marks - 1) == at then kept = marks - 1 end
    log = struct.pack('>I5', before)
      .. string.sub(log, HEAD + first * MARK + 1, HEAD + kept * MARK)
      .. struct.pack('>I7I5', at, total)
    redis.call('SET', key, log, 'PX', ttl)
    first, marks = 0, kept - first + 1
  end

  -- What must leave before there is more: the oldest, or more of them if the limit was lowered.
  if count > limit then
    stop = marks - 1
    while first < stop do
      local middle = math.floor((first + stop) / 2)
      local _, upto = mark(middle)
      if upto <= before + count - limit then first = middle + 1 else stop = middle end
    end
  end
  return admitted, math.max(limit - count, 0), mark(first) + period - now
end

local answers = {}
for i, key in ipairs(KEYS) do
  local a = 3 * i
  local limit, period, grain = tonumber(ARGV[a - 2]), tonumber(ARGV[a - 1]), tonumber(ARGV[a])
  local whole, admitted, remaining, frees_in = pcall(take, key, limit, period, grain)
  if not whole then
    if type(admitted) == 'table' then admitted = admitted.err end
    remaining, frees_in = 0, 0
  end
  answers[a - 2], answers[a - 1], answers[a] = admitted, remaining, frees_in
end
return answers
