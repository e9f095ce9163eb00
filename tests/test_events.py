"""The event log: numbers, listeners, and what is kept."""

from __future__ import annotations

import pytest

from cmemu_nb.lifecycle.events import Event, EventLog

QUIET = ["poll_empty", "result_chunk"]


def kinds(events: list[Event]) -> list[str]:
    return [event.kind for event in events]


def emit(log: EventLog, *emitted: str) -> None:
    for kind in emitted:
        log.emit(kind, at=1)


def broken(event: Event) -> None:
    raise ZeroDivisionError(event.kind)


def test_events_are_numbered_and_kept_as_they_were_told() -> None:
    log = EventLog()
    first = log.emit("job_queued", 1_700_000_000_123_456_789, "rt", "job", "add")
    second = log.emit("session_opened", 1_700_000_000_200_000_000)
    assert log.recent() == [first, second]
    assert [event.sequence for event in log.recent()] == [1, 2]
    assert first.wire() == {
        "sequence": 1,
        "at": 1_700_000_000_123,
        "kind": "job_queued",
        "runtime_id": "rt",
        "job_id": "job",
        "detail": "add",
    }
    assert (second.runtime_id, second.job_id, second.detail) == (None, None, None)


def test_only_the_newest_events_are_kept_but_their_numbers_go_on() -> None:
    log = EventLog(keep=3)
    emit(log, *"abcde")
    assert [(event.kind, event.sequence) for event in log.recent()] == [("c", 3), ("d", 4), ("e", 5)]


@pytest.mark.parametrize("quiet", QUIET)
def test_quiet_events_push_no_other_event_out_and_are_bounded_themselves(quiet: str) -> None:
    log = EventLog(keep=3)
    emit(log, "a", *[quiet] * 100, "b", quiet)
    assert kinds(log.recent()) == ["a", "b"]
    assert kinds(log.recent(all=True)) == ["a", quiet, quiet, "b", quiet]
    sequences = [event.sequence for event in log.recent(all=True)]
    assert sequences == sorted(sequences)


@pytest.mark.parametrize("kind", ["job_queued", *QUIET])
def test_every_listener_hears_every_event_quiet_ones_too(kind: str) -> None:
    log = EventLog(keep=1)
    heard: tuple[list[Event], list[Event]] = ([], [])
    log.subscribe(heard[0].append)
    log.subscribe(heard[1].append)
    told = [log.emit(kind, at) for at in range(5)]
    assert heard == (told, told)


def test_a_listener_that_raises_loses_no_event_stops_no_other_and_its_fault_is_logged() -> None:
    log = EventLog()
    heard: list[Event] = []
    log.subscribe(broken)
    log.subscribe(heard.append)
    emit(log, "a", "b")
    assert kinds(log.recent()) == ["a", "listener_failed", "b", "listener_failed"]
    assert [event.sequence for event in log.recent()] == [1, 2, 3, 4]
    assert heard == log.recent()
    assert "ZeroDivisionError: a" in (log.recent()[1].detail or "")


def test_any_number_of_listeners_that_raise_do_not_set_each_other_off_for_ever() -> None:
    log = EventLog()
    heard: list[Event] = []
    for listener in [broken] * 20 + [heard.append]:
        log.subscribe(listener)
    emit(log, "a")
    assert kinds(heard) == kinds(log.recent()) == ["a", *["listener_failed"] * 20]


def test_what_is_recent_can_be_changed_by_its_reader_without_harm() -> None:
    log = EventLog()
    emit(log, "a")
    log.recent().clear()
    assert kinds(log.recent()) == ["a"]


def test_a_subscription_ends_for_itself_alone_however_often_it_is_ended() -> None:
    log = EventLog()
    heard: list[Event] = []
    end = log.subscribe(heard.append)
    log.subscribe(heard.append)
    emit(log, "told twice")
    end()
    end()
    emit(log, "told once")
    assert kinds(heard) == ["told twice", "told twice", "told once"]


def test_listeners_may_come_and_go_while_an_event_is_told() -> None:
    log = EventLog()
    heard: list[str] = []

    def once(event: Event) -> None:
        heard.append(f"once {event.kind}")
        end()
        log.subscribe(lambda later: heard.append(f"later {later.kind}"))

    end = log.subscribe(once)
    emit(log, "a", "b")
    assert heard == ["once a", "later b"]


def test_a_listener_may_emit_events_itself() -> None:
    log = EventLog()
    heard: list[Event] = []
    log.subscribe(heard.append)
    log.subscribe(lambda event: log.emit("answer", event.at) if event.kind == "question" else None)
    emit(log, "question", "end")
    assert kinds(log.recent()) == kinds(heard) == ["question", "answer", "end"]
