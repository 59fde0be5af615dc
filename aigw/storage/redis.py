"""Counters in Redis (or Valkey), shared by any number of nodes.

**One round trip.** All claims of a hold are one call of one script, which grants them together or not at all. What is settled
afterwards is sent in the background, many at a time, and nobody waits for it.

**Nothing is counted twice.** Each hold has a number, and what it holds stands under that number in a list of its node's; who
settles takes it off there, once. Batches are numbered as well, so that one whose answer was lost may be sent again. When a
node's heartbeat stops, others give back what stands in its list.

**Where keys live.** All keys of a hold must be in one hash slot of a cluster: so the counters of a consumer whose group has
limits live where its group's do, and else in a place of their own. A group is as hot as all its consumers together.

**The clock** is Redis's: nodes measure how far theirs is off, and count rate windows in its time.

**Redis is lost**: `lost` says what then. "local" counts here, with an N-th of each limit (`redis_away.py`); "open" lets
requests in uncounted; "refuse" answers 503. It comes back as it was: what was settled meanwhile is sent. It comes back as
another process (a restart, a failover): whatever it still knows may be old, so everything gets new names, which begin empty,
and periods are primed again from the ledger.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import inf
from typing import NamedTuple

from aigw.errors import InternalError, StoreError
from aigw.storage.base import Claim, Permit
from aigw.storage.counters import GAUGE_RETRY, LONGEST_SLIDING, Window, wait_for
from aigw.storage.redis_away import Away
from aigw.storage.redis_line import Line
from aigw.storage.redis_news import CHANNEL, listen

log = logging.getLogger("aigw.storage")

PATIENCE = 1.0
"""Seconds that a hold waits for Redis before it counts as lost."""

BEAT = 2.0
"""Seconds between two signs of life."""

DEAD = 5
"""Beats that a node may miss before others give back what it held."""

QUIET = 1.5
"""Seconds that counting stays local after Redis came back empty: until then every node's records are in the ledger."""

RETRY = 0.5
"""Seconds between two attempts to reach it."""

CLOSE = 3.0
"""Seconds that a stop waits for the last settlements to arrive."""

BATCH = 200
"""Settlements in one call of the script: it must not keep others waiting (about 1 ms)."""

QUEUED = 100_000
"""Settlements that wait for Redis (about 50 MB) before only their sums are kept."""

SKEW = 0.05
"""Seconds that a clock may be off without being corrected: that much is the measurement's own error."""

PLACES = 50_000
"""Combinations of keys whose place is remembered."""

GAUGE_TTL = 86400_000
PERIOD_TTL = 40 * 86400_000
LIST_TTL = 7 * 86400_000
"""Milliseconds after which what nobody touches is forgotten; a period that was is primed again."""

# A claim is four arguments: kind, amount, limit, length of the window in seconds or milliseconds until the key is forgotten.
# Integers of up to 2**53 are exact in Lua; nine million dollars in billionths.
HOLD = """
local time = redis.call('TIME')
if time[1] + time[2] / 1000000 > tonumber(ARGV[3]) then return {-2} end
local now, count, claims, unknown, refused = tonumber(ARGV[2]), #KEYS - 1, {}, {}, 0
for i = 1, count do
  local at, key = i * 4, KEYS[i + 1]
  local claim = {kind = ARGV[at], amount = tonumber(ARGV[at + 1]), limit = tonumber(ARGV[at + 2])}
  claim.length = tonumber(ARGV[at + 3])
  if claim.kind == 'w' then
    local found, length = redis.call('HMGET', key, 'i', 'u', 'b'), claim.length
    local index, own = math.floor(now / length), tonumber(found[1])
    local used, before = tonumber(found[2]) or 0, tonumber(found[3]) or 0
    if own == nil then
      own, used, before = index, 0, 0
    elseif own ~= index and own ~= index + 1 then
      before = own + 1 == index and used or 0
      own, used = index, 0
    end
    local counted = used
    if before > 0 and length <= LONGEST_SLIDING then
      counted = used + math.max(0, math.floor(before * math.min(1, ((own + 1) * length - now) / length) - 0.00001))
    end
    claim.index, claim.used, claim.before, claim.free = own, used, before, claim.limit - claim.amount - counted
  else
    local used = redis.call('GET', key)
    if claim.kind == 'p' and not used then unknown[#unknown + 1] = i end
    claim.index, claim.used, claim.before = 0, 0, 0
    claim.free = claim.limit - claim.amount - (tonumber(used) or 0)
  end
  if claim.free < 0 and refused == 0 then refused = i end
  claims[i] = claim
end
if #unknown > 0 then
  table.insert(unknown, 1, -1)
  return unknown
end
if refused > 0 then
  local claim = claims[refused]
  local reply = {refused, claim.used, claim.before, claim.index}
  for i = 1, count do reply[i + 4] = claims[i].free + claims[i].amount end
  return reply
end
local reply, kept = {0}, {}
for i = 1, count do
  local claim, key, amount = claims[i], KEYS[i + 1], ARGV[i * 4 + 1]
  if claim.kind == 'w' then
    redis.call('HSET', key, 'i', claim.index, 'u', string.format('%.0f', claim.used + claim.amount), 'b', claim.before)
    redis.call('PEXPIRE', key, claim.length * 2000 + 60000)
  else
    redis.call('INCRBY', key, amount)
    if claim.length > 0 then redis.call('PEXPIRE', key, ARGV[i * 4 + 3]) end
    kept[#kept + 1] = claim.kind .. '\\n' .. amount .. '\\n' .. key .. '\\n'
  end
  reply[i + 1] = claim.free
end
if #kept > 0 then
  redis.call('HSET', KEYS[1], ARGV[1], table.concat(kept))
  redis.call('PEXPIRE', KEYS[1], LIST_TTL)
end
return reply
"""

# Each settlement: number of its hold (0: none), whether what it used counts when the hold is not found, how many corrections;
# each of them: which key, kind, held, used, number of the window.
SETTLE = """
local last = tonumber(redis.call('HGET', KEYS[1], 'batch') or 0)
if last >= tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 'batch', ARGV[1])
redis.call('PEXPIRE', KEYS[1], LIST_TTL)
local at = 2
while ARGV[at] do
  local number, counts, corrections = ARGV[at], ARGV[at + 1] == '1', tonumber(ARGV[at + 2])
  local found = number == '0' or redis.call('HDEL', KEYS[1], number) == 1
  at = at + 3
  for _ = 1, corrections do
    local key, kind, held, used = KEYS[tonumber(ARGV[at])], ARGV[at + 1], tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
    if kind == 'g' then
      if found and redis.call('DECRBY', key, ARGV[at + 2]) <= 0 then redis.call('DEL', key) end
    elseif kind == 'p' then
      local more = found and used - held or (counts and used or 0)
      if more ~= 0 and redis.call('EXISTS', key) == 1 then redis.call('INCRBY', key, string.format('%.0f', more)) end
    else
      local window, index = redis.call('HMGET', key, 'i', 'u', 'b'), tonumber(ARGV[at + 4])
      local own = tonumber(window[1])
      if own and own == index then
        redis.call('HSET', key, 'u', string.format('%.0f', math.max(0, tonumber(window[2]) + used - held)))
      elseif own and own == index + 1 then
        redis.call('HSET', key, 'b', string.format('%.0f', math.max(0, tonumber(window[3]) + used - held)))
      end
    end
    at = at + 5
  end
end
return 1
"""

RETURN = """
local held, count = redis.call('HGETALL', KEYS[1]), 0
for at = 1, #held, 2 do
  if held[at] ~= 'batch' then
    count = count + 1
    for kind, amount, key in string.gmatch(held[at + 1], '(%a)\\n(%d+)\\n([^\\n]+)\\n') do
      if kind == 'g' then
        if redis.call('DECRBY', key, amount) <= 0 then redis.call('DEL', key) end
      elseif redis.call('EXISTS', key) == 1 then
        redis.call('DECRBY', key, amount)
      end
    end
  end
end
local batch = redis.call('HGET', KEYS[1], 'batch')
redis.call('DEL', KEYS[1])
if batch then  -- it may only have slept, and send again what has arrived
  redis.call('HSET', KEYS[1], 'batch', batch)
  redis.call('PEXPIRE', KEYS[1], 86400000)
end
return count
"""

BEATEN = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
redis.call('ZADD', KEYS[1], string.format('%.6f', now), ARGV[1])
local dead = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.6f', now - ARGV[2]), 'LIMIT', 0, 20)
return {string.format('%.6f', now), redis.call('ZCARD', KEYS[1]) - #dead, dead}
"""

NODES = b"aigw:nodes"


SCRIPTS = tuple(
    script.replace("LONGEST_SLIDING", str(LONGEST_SLIDING)).replace("LIST_TTL", str(LIST_TTL)).encode()
    for script in (HOLD, SETTLE, RETURN, BEATEN)
)


def _sha(script: bytes) -> bytes:
    return hashlib.sha1(script, usedforsecurity=False).hexdigest().encode()  # how Redis names scripts


_HOLD, _SETTLE, _RETURN, _BEATEN = map(_sha, SCRIPTS)


class _Held(NamedTuple):
    """The token of a permit of Redis's: its number (0: nothing but windows), where and when."""

    home: str
    epoch: str
    number: int
    now: float


class _Settlement(NamedTuple):
    home: str
    number: int
    counts: bool
    corrections: tuple[tuple[str, str, int, int, int], ...]  # key as Redis has it, kind, held, used, number of the window


class _Batch(NamedTuple):
    number: int
    home: str
    settlements: list[_Settlement]


class RedisCounters:
    """`Counters` in Redis. The heartbeat begins with the first question; `up` says whether Redis answers, `nodes` how many
    share it."""

    def __init__(self, url: str, *, lost: str = "local", patience: float = PATIENCE, beat: float = BEAT) -> None:
        """*lost*: "local", "open" or "refuse". *patience* and *beat* are seconds. Nothing is connected to yet."""
        self._url, self._mode, self._patience, self._beat = url, lost, patience, beat
        self.node = f"{socket.gethostname()[:40]}-{os.getpid()}-{secrets.token_hex(4)}"
        self.up = False
        self.nodes = 1
        self._line: Line | None = None
        self._epoch = ""
        self._skew = 0.0  # Redis's clock less ours
        self._since = inf  # monotonic; when the line was opened
        self._away = Away()
        self._numbers = itertools.count(1)
        self._places: dict[tuple[tuple[str, int], ...], tuple[str, list[bytes]]] = {}
        self._homes: dict[str, str] = {}  # of keys that live elsewhere than their names say
        self._queue: list[_Settlement] = []
        self._batches: dict[int, _Batch] = {}  # numbered, perhaps sent, not yet answered
        self._sending = False
        self._tried = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    # --- holding ------------------------------------------------------------------------------------------------------

    async def hold(self, claims: Sequence[Claim], now: float) -> Permit:
        line = self._line or await self._opened()
        if line is None:
            return await self._without(claims, now)
        if self._sending:
            self._send()  # in the same write: a place that was let go is free
        if abs(self._skew) > SKEW:
            now += self._skew
        home, keys = self._placed(claims)
        number = next(self._numbers)
        parts = [b"EVALSHA", _HOLD, b"%d" % (len(keys) + 1), self._list(home), *keys]
        parts += (b"%d" % number, repr(now).encode(), b"%.6f" % (time.time() + self._skew + self._patience))
        kept = False
        for claim in claims:
            if claim.ends:
                parts += (b"p", b"%d" % claim.amount, b"%d" % claim.limit, b"%d" % (PERIOD_TTL if claim.ends == inf else 0))
                kept = True
            elif claim.window:
                parts += (b"w", b"%d" % claim.amount, b"%d" % claim.limit, b"%d" % claim.window)
            else:
                parts += (b"g", b"%d" % claim.amount, b"%d" % claim.limit, b"%d" % GAUGE_TTL)
                kept = True
        token = _Held(home, self._epoch, number if kept else 0, now)
        try:
            reply: list[int] = await line.ask(*parts)
        except StoreError as error:
            self._take_back(claims, token)
            self._lose(line, str(error))
            return await self._without(claims, now)
        except RuntimeError as error:  # a server that has forgotten our scripts, or is loading, or a replica
            self._lose(line, str(error))
            return await self._without(claims, now)
        except BaseException:  # cancelled: nobody will settle what is granted now
            self._take_back(claims, token)
            raise
        status = reply[0]
        if status == 0:
            for claim, left in zip(claims, reply[1:], strict=True):
                if claim.ends:
                    self._away.see(claim.key, claim.limit - left)
            return Permit(tuple(claims), None, 0.0, token, reply[1:])
        if status == -1:
            return Permit(unknown=[claims[index - 1].key for index in reply[1:]])
        if status == -2:  # it was stopped, or so slow that this one was given up
            self._lose(line, "it was too slow")
            return await self._without(claims, now)
        return _refusal(claims, reply, now)

    def _take_back(self, claims: Sequence[Claim], token: _Held) -> None:
        """Whether it was granted nobody knows: if so, give it back."""
        if token.number:
            self._enqueue(_Settlement(token.home, token.number, False, self._corrections(claims, token, {}, nothing=True)))

    async def _opened(self) -> Line | None:
        """The line, as soon as the first attempt to get one has ended."""
        if not self._tasks:
            loop = asyncio.get_running_loop()
            self._tasks = [loop.create_task(self._live(), name="redis")]
        if not self._tried.is_set():
            await self._tried.wait()
        return self._line

    async def _without(self, claims: Sequence[Claim], now: float) -> Permit:
        if self._mode == "local":
            return await self._away.hold(claims, now, max(1, self.nodes))
        if self._mode == "refuse":
            raise InternalError(
                "gateway_overloaded",
                "limits cannot be counted now, and this gateway serves nobody uncounted; try again in a few seconds",
                retry_after=5,
            )
        raise StoreError("Redis, where limits are counted, cannot be reached")

    # --- settling -----------------------------------------------------------------------------------------------------

    def settle(self, permit: Permit, used: Mapping[str, int]) -> None:
        token = permit.token
        if token is None:
            return
        if not isinstance(token, _Held):
            self._away.settle(permit, used)
            self._later()
            return
        permit.token = None
        if token.epoch != self._epoch:  # Redis began anew meanwhile: there is nothing of this hold
            self.add({claim.key: used.get(claim.key, claim.amount) for claim in permit.claims if claim.ends})
            return
        corrections = self._corrections(permit.claims, token, used)
        if corrections or token.number:
            self._enqueue(_Settlement(token.home, token.number, True, corrections))

    def _corrections(
        self, claims: Sequence[Claim], token: _Held, used: Mapping[str, int], *, nothing: bool = False
    ) -> tuple[tuple[str, str, int, int, int], ...]:
        found = []
        for claim in claims:
            real = 0 if nothing else used.get(claim.key, claim.amount)
            if claim.ends:
                found.append((self._key(token.home, claim), "p", claim.amount, real, 0))
            elif not claim.window:
                found.append((self._key(token.home, claim), "g", claim.amount, 0, 0))
            elif real != claim.amount and not nothing:
                found.append((self._key(token.home, claim), "w", claim.amount, real, int(token.now // claim.window)))
        return tuple(found)

    def release(self, permit: Permit) -> None:
        self.settle(permit, {claim.key: 0 for claim in permit.claims})

    def add(self, used: Mapping[str, int]) -> None:
        self._away.add(used)
        self._later()

    def _enqueue(self, settlement: _Settlement) -> None:
        self._queue.append(settlement)
        self._later()
        if len(self._queue) > QUEUED:
            self._shorten()

    def _shorten(self) -> None:
        """Redis has been away for long: keep the sums. What was held is given back by the others, once our old name is dead."""
        queue, self._queue = self._queue, []
        for settlement in queue:
            if settlement.counts:
                self._away.add(
                    {key.rpartition("\0")[2]: used for key, kind, _, used, _ in settlement.corrections if kind == "p"}
                )
        log.warning("%d settlements wait for Redis: only their sums are kept", len(queue))
        self._batches = {}
        self.node = f"{self.node.rpartition('-')[0]}-{secrets.token_hex(4)}"

    def _later(self) -> None:
        """Send what was settled, all of this turn of the loop together."""
        if not self._sending and self._line is not None:
            self._sending = True
            asyncio.get_running_loop().call_soon(self._send)

    def _send(self) -> None:
        self._sending = False
        line = self._line
        if line is None:
            return  # the next one sends it
        for key, used in self._away.take().items():
            home = self._homes.get(key) or _holder(key)
            self._queue.append(_Settlement(home, 0, True, ((self._named(home, "p", key), "p", 0, used, 0),)))
        queue, self._queue = self._queue, []
        by_home: dict[str, list[_Settlement]] = {}
        for settlement in queue:
            by_home.setdefault(settlement.home, []).append(settlement)
        for home, settlements in by_home.items():
            for start in range(0, len(settlements), BATCH):
                batch = _Batch(next(self._numbers), home, settlements[start : start + BATCH])
                self._batches[batch.number] = batch
                self._ask(line, batch)

    def _ask(self, line: Line, batch: _Batch) -> None:
        line.ask(*self._encoded(batch)).add_done_callback(partial(self._answered, line, batch))

    def _answered(self, line: Line, batch: _Batch, answer: asyncio.Future[int]) -> None:
        """It arrived; or perhaps it did not: then it is sent again when Redis is back."""
        error = answer.exception()
        if error is None:
            self._batches.pop(batch.number, None)
        else:
            self._lose(line, str(error))

    def _again(self, line: Line) -> None:
        """Send again what was not answered, in its order."""
        for batch in self._batches.values():
            self._ask(line, batch)
        self._send()

    def _encoded(self, batch: _Batch) -> list[bytes]:
        places: dict[str, int] = {}
        arguments = [b"%d" % batch.number]
        for settlement in batch.settlements:
            arguments += (
                b"%d" % settlement.number,
                b"1" if settlement.counts else b"0",
                b"%d" % len(settlement.corrections),
            )
            for key, kind, held, used, index in settlement.corrections:
                place = places.setdefault(key, len(places) + 2)
                arguments += (b"%d" % place, kind.encode(), b"%d" % held, b"%d" % used, b"%d" % index)
        keys = [key.replace("\0", "").encode() for key in places]
        return [b"EVALSHA", _SETTLE, b"%d" % (len(keys) + 1), self._list(batch.home), *keys, *arguments]

    # --- periods ------------------------------------------------------------------------------------------------------

    async def prime(self, used: Mapping[str, tuple[int, float]]) -> None:
        line = self._line or await self._opened()
        if line is None:
            await self._away.prime(used)
            return
        now = time.time()
        try:
            await asyncio.gather(
                *(
                    line.ask(b"SET", self._period(key), b"%d" % amount, b"NX", b"PX", b"%d" % _period_ttl(ends, now))
                    for key, (amount, ends) in used.items()
                )
            )
        except (StoreError, RuntimeError) as error:
            self._lose(line, str(error))
            await self._away.prime(used)

    async def read(self, keys: Sequence[str]) -> list[int | None]:
        line = self._line or await self._opened()
        if line is None:
            return await self._away.read(keys)
        if self._sending:
            self._send()
        try:
            found = await asyncio.gather(*(line.ask(b"GET", self._period(key)) for key in keys))
        except (StoreError, RuntimeError) as error:
            self._lose(line, str(error))
            return await self._away.read(keys)
        return [None if value is None else int(value) for value in found]

    # --- names --------------------------------------------------------------------------------------------------------

    def _placed(self, claims: Sequence[Claim]) -> tuple[str, list[bytes]]:
        what = tuple([(claim.key, -1 if claim.ends else claim.window) for claim in claims])
        place = self._places.get(what)
        if place is None:
            holders = [_holder(claim.key) for claim in claims]
            home = next((holder for holder in holders if holder.startswith("g:")), holders[0] if holders else "-")
            for claim, holder in zip(claims, holders, strict=True):
                if holder != home:
                    self._homes[claim.key] = home
                else:
                    self._homes.pop(claim.key, None)
            if len(self._places) >= PLACES:
                self._places.clear()
            place = home, [self._key(home, claim).replace("\0", "").encode() for claim in claims]
            self._places[what] = place
        return place

    def _key(self, home: str, claim: Claim) -> str:
        return self._named(home, "p" if claim.ends else f"w{claim.window}" if claim.window else "g", claim.key)

    def _named(self, home: str, kind: str, key: str) -> str:
        """As Redis has it, but for a mark before the part that is ours."""
        return f"aigw:{self._epoch}:{{{_tag(home)}}}:{kind}:\0{key}"

    def _period(self, key: str) -> bytes:
        return self._named(self._homes.get(key) or _holder(key), "p", key).replace("\0", "").encode()

    def _list(self, home: str) -> bytes:
        return f"aigw:{self._epoch}:{{{_tag(home)}}}:held:{self.node}".encode()

    # --- life ---------------------------------------------------------------------------------------------------------

    async def _live(self) -> None:
        """Connect, give signs of life, connect again."""
        told = False
        while True:
            line: Line | None = None
            try:
                line = await Line.open(self._url, "aigw", self._patience)
                told = await self._begin(line, told=told)
                while not line.closed.is_set():
                    await self._give_sign(line)
                    try:
                        async with asyncio.timeout(self._beat):
                            await line.closed.wait()
                    except TimeoutError:
                        pass
            except (StoreError, RuntimeError, UnicodeDecodeError, ValueError) as error:
                if line is not None:
                    self._lose(line, str(error))
                if not told and not self.up:
                    told = True
                    log.error("%s; %s", error, _MEANWHILE[self._mode])
            finally:
                self._line, self.up = (None, False) if self._line is line else (self._line, self.up)
                if line is not None:
                    await line.close()
                self._tried.set()
            await asyncio.sleep(RETRY)

    async def _begin(self, line: Line, *, told: bool) -> bool:
        """Use *line*, once it has our scripts; what Redis knew before is forgotten when it is another process than before."""
        info = await line.ask(b"INFO", b"server")
        for script in SCRIPTS:
            await line.ask(b"SCRIPT", b"LOAD", script)
        values = dict(row.split(":", 1) for row in info.decode().splitlines() if ":" in row)
        epoch = values.get("run_id", "one")[:12]
        if epoch != self._epoch:
            if self._epoch:
                log.warning("Redis began anew: what budgets have used is read from the ledger again")
                await asyncio.sleep(QUIET)
                if line.closed.is_set():
                    return told
                self._queue, self._batches = [], {}
                self._away.forget()
            self._epoch = epoch
            self._places.clear()
        await self._give_sign(line)
        self._since = time.monotonic()
        self._line, self.up = line, True
        self._again(line)
        self._tried.set()
        if told or self.nodes > 1:
            log.info("counters: Redis answers; %d nodes share it", self.nodes)
        return False

    async def _give_sign(self, line: Line) -> None:
        before = time.time()
        answer = await line.ask(b"EVALSHA", _BEATEN, b"1", NODES, self.node.encode(), b"%.3f" % (DEAD * self._beat))
        took = time.time() - before
        if took < self._patience / 2:
            self._skew = float(answer[0]) - before - took / 2
        self.nodes = max(1, int(answer[1]))
        if answer[2] and time.monotonic() - self._since > (DEAD + 1) * self._beat:  # else it was Redis that slept, not they
            for node in answer[2]:
                await self._bury(line, node)

    async def _bury(self, line: Line, node: bytes) -> None:
        """Give back what a dead node held."""
        cursor, returned = b"0", 0
        while True:
            cursor, lists = await line.ask(b"SCAN", cursor, b"MATCH", b"aigw:*:held:" + node, b"COUNT", b"1000")
            for one in lists:
                returned += await line.ask(b"EVALSHA", _RETURN, b"1", one)
            if cursor == b"0":
                break
        await line.ask(b"ZREM", NODES, node)
        log.warning("counters: the node %s is gone; what it held for %d requests is free again", node.decode(), returned)

    def _lose(self, line: Line, why: str) -> None:
        """Stop using *line*; the one who keeps it alive gets another."""
        if self._line is line:
            self._line, self.up = None, False
            self._away.begin()
            log.error("%s; %s", why, _MEANWHILE[self._mode])
        line.closed.set()

    # --- what nodes tell each other -----------------------------------------------------------------------------------

    def publish(self, message: bytes) -> None:
        """Tell all other nodes, if Redis answers; whether they heard it nobody knows."""
        if self._line is not None:
            self._line.ask(b"PUBLISH", CHANNEL, message).add_done_callback(_heeded)

    async def news(self, hear: Callable[[bytes], None]) -> None:
        """Hand what nodes publish (this one, too) to *hear*, until cancelled."""
        await listen(self._url, hear)

    async def sweep(self, now: float) -> None:
        """Redis forgets by itself; dead nodes are looked for with each sign of life."""

    async def close(self) -> None:
        """After the last settlements have arrived, if they can."""
        if self._line is not None:
            try:
                async with asyncio.timeout(CLOSE):
                    while self._line is not None and (self._queue or self._batches or self._sending):  # noqa: ASYNC110
                        await asyncio.sleep(0.005)
                    if self._line is not None:
                        await self._line.ask(b"ZREM", NODES, self.node.encode())
            except (TimeoutError, StoreError, RuntimeError):
                pass
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


_MEANWHILE = {
    "local": "limits are counted by each node alone meanwhile, with its share of them",
    "open": "limits do not hold meanwhile",
    "refuse": "requests with limits are refused meanwhile",
}


def _heeded(answer: asyncio.Future[object]) -> None:
    """A message that is lost is no harm."""
    if not answer.cancelled():
        answer.exception()


def _refusal(claims: Sequence[Claim], reply: list[int], now: float) -> Permit:
    index, used, before, number, *left = reply
    claim = claims[index - 1]
    if claim.ends:
        wait = claim.ends - now
    elif claim.window:
        window = Window(number)
        window.used, window.before = used, before
        wait = wait_for(window, claim, now)
    else:
        wait = GAUGE_RETRY
    return Permit((), claim, wait, None, [max(0, free) for free in left])


def _holder(key: str) -> str:
    """Whose counter: rpm:ID, usd:g:GROUP:LABEL ..."""
    kind, colon, rest = key.partition(":")
    if not colon:
        return "-"
    return rest.rpartition(":")[0] if kind in ("usd", "tokens") else rest


def _tag(home: str) -> str:
    """What decides on the slot; a brace would end it early."""
    return home.replace("{", "(").replace("}", ")") or "-"


def _period_ttl(ends: float, now: float) -> int:
    """Milliseconds until a period is forgotten: an hour after its end, for those that settle late."""
    return PERIOD_TTL if ends == inf else min(PERIOD_TTL, int(max(3600.0, ends - now + 3600) * 1000))
