"""The scratch cache and locks, used by the official SDK's own classes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
from cells import make
from client import Api, error_code, eventually
from conftest import end_programs
from scratch import CacheTTL, DistributedCache, DistributedLock
from scratch._client import _get_default_client as client_of_this_process
from scratch._types import CacheError, RateLimitedError

from cmemu_nb.lifecycle import lifecycle
from cmemu_nb.lifecycle import scratch as limits
from cmemu_nb.lifecycle.records import NS_PER_S
from cmemu_nb.wire.paths import SCRATCH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cmemu_nb import Emulator

pytestmark = pytest.mark.once

PROGRAM = Path(__file__).parent / "programs" / "scratch_module.py"
# requests prefers the authorities of REQUESTS_CA_BUNDLE to those of the session, and a machine may set it.
VARIABLES = ("SCRATCH_TOKEN", "FOUNDRY_SERVICE_DISCOVERY_V2", "CONNECTIONS_TO_OTHER_PODS_CA_PATH", "REQUESTS_CA_BUNDLE")


@pytest.fixture
def emu(serve: Callable[..., Any]) -> Iterator[Emulator]:
    with serve() as emulator:
        yield emulator
        end_programs(emulator)


class Clock:
    """The emulator's steady clock, which `pass_` sets forward."""

    def __init__(self) -> None:
        self.ahead = 0

    def __call__(self) -> int:
        return time.monotonic_ns() + self.ahead

    def pass_(self, seconds: int) -> None:
        self.ahead += seconds * NS_PER_S


@pytest.fixture
def clock(emu: Emulator, monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(emu.lifecycle, "_monotonic", clock)
    return clock


@pytest.fixture
def become(emu: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Give the SDK in this process the environment of one more replica of a runtime."""
    emu.open_runtime("rt")

    def become(runtime_id: str) -> None:
        for name, value in emu.env(runtime_id).items():
            if name in VARIABLES:
                monkeypatch.setenv(name, value)

    become("rt")
    client_of_this_process.cache_clear()
    yield become
    client_of_this_process()._session.close()  # noqa: SLF001 - the SDK never closes it
    client_of_this_process.cache_clear()


def kinds(emu: Emulator) -> list[str]:
    events = emu.lifecycle.events.recent(all=True)
    return [event.kind for event in events if event.kind.startswith(("lock_", "cache_"))]


def test_two_replicas_contend_for_a_lock_and_share_a_cache(emu: Emulator, clock: Clock, tmp_path: Path) -> None:
    module = emu.launch(f"python {PROGRAM}", "real", replicas=2).wait_until_responsive()
    until = {"until": str(tmp_path / "go-on")}
    first = emu.submit("work_alone", until)
    eventually(lambda: "the lock is held" in module.logs.text, "a replica has the lock")
    # The other replica takes these jobs: the first one has as many as it may.
    assert emu.call("work_alone", until) == ["held by another replica"]
    assert emu.call("progress") == "half"
    clock.pass_(limits.LEASE_SECONDS)
    second = emu.submit("work_alone", until)
    eventually(lambda: module.logs.text.count("the lock is held") == 2, "the other replica has the lock")
    Path(until["until"]).touch()
    assert sorted([first.result()[0], second.result()[0]]) == ["finished", "the lock was lost"]
    assert first.result() == ["the lock was lost"]
    assert emu.call("work_alone", until) == ["finished"]
    acquired = [event.detail or "" for event in emu.lifecycle.events.recent() if event.kind == "lock_acquired"]
    holders = [process.replica.replica_id for process in module.replicas]
    assert sorted(acquired[:2]) == sorted(f"'batch' by replica {holder}" for holder in holders)
    assert kinds(emu)[:4] == ["lock_acquired", "cache_put", "lock_expired", "lock_acquired"]
    clock.pass_(301)
    assert emu.call("progress") == "None"


@pytest.mark.usefixtures("become")
def test_the_cache_keeps_texts_for_their_time(clock: Clock) -> None:
    cache = DistributedCache(default_ttl=CacheTTL.FIVE_MINUTES)
    assert (cache.get("key"), cache.exists("key")) == (None, False)
    texts = {" key": "", "key": 'ü "\n\U0001f600', "": "for a blank key"}
    for key, value in texts.items():
        cache.put(key, value)
    assert [cache.get(key) for key in texts] == list(texts.values())
    assert cache.batch_get([*texts, "unknown"]) == texts
    cache.put("key", "another", ttl=CacheTTL.ONE_DAY)
    client_of_this_process().put("without a time", "v")
    cache.delete("")
    cache.delete("")
    assert cache.batch_get([*texts]) == {" key": "", "key": "another"}
    clock.pass_(299)
    assert cache.exists(" key")
    clock.pass_(1)
    assert (cache.get(" key"), cache.exists(" key"), cache.get("key")) == (None, False, "another")
    clock.pass_(3299)
    assert cache.exists("without a time")
    clock.pass_(1)
    assert not cache.exists("without a time")
    clock.pass_(86_400 - 3600)
    assert cache.batch_get([*texts]) == {}


@pytest.mark.usefixtures("become")
def test_a_lock_is_held_until_it_is_unlocked_or_its_lease_ends(emu: Emulator, clock: Clock) -> None:
    locks = DistributedLock()
    lock, other = locks.try_lock("a"), locks.try_lock("b")
    assert lock is not None
    assert other is not None
    assert (lock.lock_name, locks.try_lock("a")) == ("a", None)
    clock.pass_(19)
    assert lock.refresh()
    clock.pass_(19)
    assert not other.refresh()
    assert locks.try_lock("a") is None
    lock.unlock()
    again = locks.try_lock("a")
    assert again is not None
    assert again.lock_id != lock.lock_id
    clock.pass_(20)
    again.unlock()
    assert kinds(emu) == [
        *["lock_acquired", "lock_acquired", "lock_refreshed", "lock_expired", "lock_released", "lock_acquired"],
        "lock_expired",
    ]


IN_A_CELL = """
def work(context, event):
    cache, lock = DistributedCache(), DistributedLock().try_lock("cell")
    before = cache.get("key")
    cache.put("key", "value")
    if lock is None:
        return "held"
    with lock:
        return [before, cache.get("key"), DistributedLock().try_lock("cell") is None]
"""


def test_functions_in_a_configured_notebook_have_a_scratch_too(serve_functions: Callable[..., Any]) -> None:
    with serve_functions() as emulator:
        emulator.configure("notebook")
        emulator.function(make(IN_A_CELL, DistributedCache=DistributedCache, DistributedLock=DistributedLock))
        assert [emulator.call("work") for _ in range(2)] == [[None, "value", True], ["value", "value", True]]
        emulator.runtime("notebook").reset()
        assert emulator.call("work") == [None, "value", True]
        emulator.stop()
        emulator.start()
        assert emulator.call("work") == ["value", "value", True]
        details = [event.detail for event in emulator.lifecycle.events.recent() if event.kind == "lock_acquired"]
        assert details == ["'cell' by the session's own executor"] * 4
        client_of_this_process()._session.close()  # noqa: SLF001 - the SDK never closes it


def test_the_replicas_of_a_runtime_share_and_a_reset_empties(emu: Emulator, become: Callable[[str], None]) -> None:
    cache, locks = DistributedCache(), DistributedLock()
    cache.put("key", "value")
    lock = locks.try_lock("lock")
    assert lock is not None
    become("rt")
    assert (cache.get("key"), locks.try_lock("lock")) == ("value", None)
    emu.open_runtime("other")
    become("other")
    assert cache.get("key") is None
    assert locks.try_lock("lock") is not None
    become("rt")
    emu.runtime("rt").reset()
    with pytest.raises(CacheError, match="disabled or the auth token is invalid"):
        cache.get("key")
    become("rt")
    assert cache.get("key") is None
    assert locks.try_lock("lock") is not None
    assert not lock.refresh()


@pytest.mark.usefixtures("become")
def test_what_is_too_much_is_refused_or_makes_room(emu: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "MAX_LOCKS", 2)
    monkeypatch.setattr(lifecycle, "MAX_VALUE_BYTES", 10)
    monkeypatch.setattr(limits, "MAX_CACHE_BYTES", 3 * limits.ENTRY_BYTES)
    cache, locks = DistributedCache(), DistributedLock()
    with pytest.raises(RateLimitedError):
        [locks.try_lock(name) for name in "abc"]
    with pytest.raises(requests.HTTPError, match="413"):
        cache.put("key", "x" * 11)
    for key in "abc":
        cache.put(key, "x")
    assert cache.batch_get(["a", "b", "c"]) == {"b": "x", "c": "x"}
    assert emu.lifecycle._session("rt").scratch.size == 2 * (limits.ENTRY_BYTES + 2)  # noqa: SLF001
    refused = [event.detail or "" for event in emu.lifecycle.events.recent() if event.kind == "request_refused"]
    assert "the replicas of runtime 'rt' hold 2 locks already" in refused[0]
    assert "The value of the cache key 'key' has 11 bytes" in refused[1]


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("cache", {"key": "k", "value": {"value": "v"}, "ttl": "A_WEEK"}, "'ttl' is 'A_WEEK'. It must be ONE_MINUTE,"),
        ("cache", {"key": "k", "value": "v"}, "value) can't be read: it must be a JSON object, not a string"),
        ("cache/get", {}, "'key' must be a string"),
        ("cache/batch-get", {"keys": ["k"] * 101}, "'keys' must be an array of at most 100 strings"),
        ("cache/get", {"key": "k" * 5000}, None),
        ("cache", {"key": "k" * 5000, "value": {"value": "v"}}, "The cache key has 5,000 bytes"),
        ("lock/try-lock", {"lockName": "n" * 5000}, "The lock name has 5,000 bytes"),
        ("lock/refresh", {"handle": {"lockName": "n"}}, "'lockId' must be a string"),
    ],
)
def test_a_request_that_is_wrong_is_told_what_would_be_right(
    emu: Emulator, path: str, body: dict[str, Any], said: str | None
) -> None:
    emu.open_runtime("rt")
    answer = Api(emu.url, "").send(
        "POST", f"{SCRATCH}/{path}", json=body, headers={"Authorization": emu.env("rt")["SCRATCH_TOKEN"]}
    )
    if said is None:
        assert answer.status_code == 204
    else:
        assert error_code(answer) == "invalid_request"
        assert said in answer.json()["error_description"]


def test_only_the_scratch_token_opens_the_scratch_and_it_opens_nothing_else(emu: Emulator) -> None:
    runtime = emu.open_runtime("rt")
    token = emu.env("rt")["SCRATCH_TOKEN"]
    api = Api(emu.url, "")
    (replica,) = emu.lifecycle.replicas("rt")
    for wrong in (replica.token, runtime.token, str(emu.token), f"Bearer {token}", token[:-1], ""):
        answer = api.send("POST", f"{SCRATCH}/cache/get", json={"key": "k"}, headers={"Authorization": wrong})
        assert (answer.status_code, error_code(answer)) == (403, "invalid_scratch_token")
    poll = api.send("GET", "/interactive-module/api/internal-query/job", headers={"Module-Auth-Token": token})
    assert poll.status_code == 401
