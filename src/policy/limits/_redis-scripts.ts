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

/**
 * KEYS: servers, this server's open takes, counters.
 * ARGV: server, take, lease, what to give back should the server die; per counter: limit, amount, when it may be
 * forgotten (0: never), 1 where a missing counter is not 0.
 * Returns `unread` and their places, `refused`, place and value, or `taken` and the values.
 */
export const TAKE = script(`${NOW}
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[1])
end
local values = {}
local unread = { 'unread' }
for i = 1, #KEYS - 2 do
  local value = redis.call('GET', KEYS[i + 2])
  if not value and ARGV[4 * i + 4] == '1' then unread[#unread + 1] = i - 1 end
  values[i] = tonumber(value or '0')
end
if #unread > 1 then return unread end
for i = 1, #KEYS - 2 do
  if values[i] + ARGV[4 * i + 2] > tonumber(ARGV[4 * i + 1]) then return { 'refused', i - 1, values[i] } end
end
local taken = { 'taken' }
for i = 1, #KEYS - 2 do
  taken[i + 1] = redis.call('INCRBY', KEYS[i + 2], ARGV[4 * i + 2])
  if ARGV[4 * i + 3] ~= '0' then redis.call('PEXPIREAT', KEYS[i + 2], ARGV[4 * i + 3]) end
end
redis.call('HSET', KEYS[2], ARGV[2], ARGV[4])
return taken
`);

const CHANGE = `
local function change(key, by)
  if by == '0' or by == '-0' or redis.call('EXISTS', key) == 0 then return end
  if redis.call('INCRBY', key, by) <= 0 and redis.call('PTTL', key) == -1 then redis.call('DEL', key) end
end
`;

/**
 * KEYS: this server's open takes, counters. ARGV: take, 1 where it was sent before; per counter: what goes back of
 * what was taken (≤ 0), what was used.
 * A take that is not open any more was given back when the server seemed dead: what was used is added; unless this was
 * sent before, and then that was it.
 */
export const SETTLE = script(`${CHANGE}
local open = redis.call('HDEL', KEYS[1], ARGV[1])
if open == 0 and ARGV[2] == '1' then return 0 end
for i = 1, #KEYS - 1 do
  change(KEYS[i + 1], open == 1 and ARGV[2 * i + 1] or ARGV[2 * i + 2])
end
return open
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
      change(entry[1], string.format('%.0f', -entry[2]))
    end
  end
  redis.call('DEL', key)
  redis.call('ZREM', KEYS[1], server)
end
return #dead
`);
