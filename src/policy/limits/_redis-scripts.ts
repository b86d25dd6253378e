/**
 * The scripts of the shared ledger. Redis runs each as one piece, which is what makes a take all or nothing.
 *
 * All keys have the tag {castellan}, so that a script's keys are in one slot of a cluster. Used by redis-ledger.ts only.
 */
import { script } from "./redis.ts";

const NOW = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
`;

/** Whole numbers as they are: Lua would print large ones as powers of ten. */
const WHOLE = `
local function whole(number)
  return string.format('%.0f', number)
end
`;

/**
 * KEYS: servers, this server's open takes, counters. A counter whose rest somebody has, who may come to more, is marked.
 * ARGV: server, take, lease; per counter: limit, amount, what it may come to, when it may be forgotten (0: never),
 * 1 where a missing counter is not 0.
 * Returns `unread` and their places, `refused`, place and value, or `taken` and the values. What was taken is written
 * down: per counter its key, how much, 1 where it was marked.
 */
export const TAKE = script(`${NOW}${WHOLE}
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[1])
end
local values = {}
local unread = { 'unread' }
for i = 1, #KEYS - 2 do
  local value = redis.call('GET', KEYS[i + 2])
  if not value and ARGV[5 * i + 3] == '1' then unread[#unread + 1] = i - 1 end
  values[i] = tonumber(value or '0')
end
if #unread > 1 then return unread end
local open = {}
for i = 1, #KEYS - 2 do
  local key = KEYS[i + 2]
  local left = tonumber(ARGV[5 * i - 1]) - values[i]
  local most = tonumber(ARGV[5 * i + 1])
  open[i] = { key, ARGV[5 * i + 1], 0 }
  if most > left then
    if tonumber(ARGV[5 * i]) > left or redis.call('EXISTS', key .. ':doubt') == 1 then
      return { 'refused', i - 1, values[i] }
    end
    open[i] = { key, whole(left), 1 }
  end
end
local taken = { 'taken' }
for i = 1, #KEYS - 2 do
  local key, forgotten = KEYS[i + 2], ARGV[5 * i + 2]
  taken[i + 1] = redis.call('INCRBY', key, open[i][2])
  if forgotten ~= '0' then redis.call('PEXPIREAT', key, forgotten) end
  if open[i][3] == 1 then
    redis.call('SET', key .. ':doubt', ARGV[2])
    if forgotten ~= '0' then redis.call('PEXPIREAT', key .. ':doubt', forgotten) end
  end
end
redis.call('HSET', KEYS[2], ARGV[2], cjson.encode(open))
return taken
`);

const CHANGE = `${WHOLE}
local function change(key, by)
  if by == '0' or by == '-0' or redis.call('EXISTS', key) == 0 then return end
  if redis.call('INCRBY', key, by) <= 0 and redis.call('PTTL', key) == -1 then redis.call('DEL', key) end
end
local function settle(entry, kept)
  change(entry[1], whole(kept - entry[2]))
  if entry[3] == 1 then redis.call('DEL', entry[1] .. ':doubt') end
end
`;

/**
 * KEYS: this server's open takes, counters. ARGV: take, 1 where it was sent before; per counter: what was used.
 * A take that is not open any more was given back when the server seemed dead: what was used is added; unless this was
 * sent before, and then that was it.
 */
export const SETTLE = script(`${CHANGE}
local written = redis.call('HGET', KEYS[1], ARGV[1])
if not written then
  if ARGV[2] == '1' then return 0 end
  for i = 1, #KEYS - 1 do change(KEYS[i + 1], ARGV[i + 2]) end
  return 0
end
redis.call('HDEL', KEYS[1], ARGV[1])
for i, entry in ipairs(cjson.decode(written)) do settle(entry, ARGV[i + 2]) end
return 1
`);

/** KEYS: counter. ARGV: value, when it may be forgotten. */
export const BEGIN = script(`
if redis.call('SET', KEYS[1], ARGV[1], 'NX') then redis.call('PEXPIREAT', KEYS[1], ARGV[2]) end
return 1
`);

/**
 * KEYS: servers. ARGV: server, lease (below 0: it leaves), what stands before a server's name in the key of its open takes.
 * Says that this server lives, and gives back what servers have open that do not.
 */
export const LIVE = script(`${NOW}${CHANGE}
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
local dead = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. string.format('%.0f', now))
for _, server in ipairs(dead) do
  local key = ARGV[3] .. server
  for _, open in ipairs(redis.call('HVALS', key)) do
    for _, entry in ipairs(cjson.decode(open)) do
      settle(entry, 0)
    end
  end
  redis.call('DEL', key)
  redis.call('ZREM', KEYS[1], server)
end
return #dead
`);
