"""The broker between trials and workers: who gets what, who goes on, what a death does. Plain asyncio, no Ray."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from raylora.cluster.tune.broker import Broker, Report, TrialRequest


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(coroutine, 20))


def request(trial: str, key: str | None = "k", slots: int = 4) -> TrialRequest:
    return TrialRequest(trial, {}, key, slots, words="r=4", checkpoint={"f": b"x"})


def trials(requests: list[TrialRequest] | None) -> list[str]:
    assert requests is not None
    return [o.trial for o in requests]


def test_an_idle_worker_takes_all_that_can_be_packed_and_waits_for_those_to_come() -> None:
    async def scene() -> None:
        broker = Broker(total=3, concurrent=3, workers=1)
        taking = asyncio.create_task(broker.take("w", None, 99, 5))
        for name in ("a", "b", "c"):
            await asyncio.sleep(0.01)
            assert not taking.done(), "it would leave the others waiting for an epoch"
            await broker.submit(request(name))
        assert trials(await taking) == ["a", "b", "c"]

    run(scene())


def test_a_worker_takes_no_more_than_its_places_and_its_share() -> None:
    async def scene() -> None:
        broker = Broker(total=8, concurrent=8, workers=2)
        for name in "abcdefgh":
            await broker.submit(request(name, slots=3))
        assert trials(await broker.take("w1", None, 99, 0)) == ["a", "b", "c"]
        assert trials(await broker.take("w2", None, 2, 0)) == ["d", "e"]

    run(scene())


def test_trials_of_another_key_wait_for_another_pack_and_one_alone_goes_alone() -> None:
    async def scene() -> None:
        broker = Broker(total=4, concurrent=4, workers=1)
        for name, key in (("a", "k"), ("b", "other"), ("c", "k"), ("d", None)):
            await broker.submit(request(name, key))
        assert trials(await broker.take("w", None, 99, 0)) == ["a", "c"]
        assert trials(await broker.take("w", "k", 2, 0.01)) == []
        assert trials(await broker.take("w", None, 99, 0)) == ["b"]
        assert trials(await broker.take("w", None, 99, 0)) == ["d"]

    run(scene())


def test_a_pack_is_refilled_without_waiting_when_no_trial_is_to_come() -> None:
    async def scene() -> None:
        broker = Broker(total=1, concurrent=1, workers=1)
        await broker.submit(request("a"))
        await broker.take("w", None, 99, 5)
        assert await broker.take("w", "k", 3, 60) == []

    run(scene())


def test_a_worker_does_not_wait_for_trials_that_start_only_when_others_end() -> None:
    """Four trials at once of six: those of the second seed have no place for the last of the first, nor the reverse."""

    async def scene() -> None:
        broker = Broker(total=6, concurrent=4, workers=1)
        ids = [
            await broker.submit(request(name, key)) for name, key in zip("abcd", ("k", "k", "k", "other"), strict=True)
        ]
        assert trials(await broker.take("w", None, 99, 60)) == ["a", "b", "c"]
        assert await broker.take("w", "k", 1, 60) == []
        await broker.leave(ids[0])  # now another may come
        taking = asyncio.create_task(broker.take("w", "k", 1, 60))
        await asyncio.sleep(0.01)
        assert not taking.done()
        await broker.submit(request("e"))
        assert trials(await taking) == ["e"]

    run(scene())


def test_a_report_reaches_its_proxy_whose_next_question_is_the_word_to_go_on() -> None:
    async def scene() -> None:
        broker = Broker(total=2, concurrent=2, workers=1)
        goes, leaves = await broker.submit(request("a")), await broker.submit(request("b"))
        await broker.take("w", None, 99, 5)
        await broker.post({attempt_id: Report({"epoch": 1.0}) for attempt_id in (goes, leaves)})
        assert (await broker.next(goes)).metrics == {"epoch": 1.0}
        deciding = asyncio.create_task(broker.decisions([goes, leaves], 5))
        await asyncio.sleep(0.01)
        assert not deciding.done()
        asking = asyncio.create_task(broker.next(goes))
        await broker.leave(leaves)
        assert await deciding == [goes]
        asking.cancel()
        assert [item["trial"] for item in await broker.events()] == ["a", "b"]
        assert await broker.events() == []

    run(scene())


def test_a_silent_proxy_is_given_up() -> None:
    async def scene() -> None:
        broker = Broker(total=1, concurrent=1, workers=1)
        attempt_id = await broker.submit(request("a"))
        await broker.take("w", None, 99, 5)
        await broker.post({attempt_id: Report({"epoch": 1.0})})
        assert await broker.decisions([attempt_id], 0.05) == []

    run(scene())


def test_a_proxy_that_answers_too_late_is_told_to_queue_its_trial_again() -> None:
    async def scene() -> None:
        broker = Broker(total=1, concurrent=1, workers=1)
        late = await broker.submit(request("a"))
        await broker.take("w", None, 99, 5)
        await broker.post({late: Report({"epoch": 1.0})})
        assert await broker.decisions([late], 0.05) == []
        assert (await broker.next(late)).metrics == {"epoch": 1.0}
        assert (await asyncio.wait_for(broker.next(late), 1)).again
        await broker.leave(late)
        await broker.submit(request("a"))
        assert trials(await broker.take("w", None, 99, 5)) == ["a"]

    run(scene())


def test_what_a_worker_hands_back_is_no_failure_and_nor_is_what_it_no_longer_holds() -> None:
    async def scene() -> None:
        broker = Broker(total=3, concurrent=3, workers=1)
        ended, held, waits = [await broker.submit(request(name)) for name in "abc"]
        await broker.take("w", None, 2, 0)
        await broker.post({ended: Report({"epoch": 1.0}, finished=True)})
        assert await broker.held("w") == [held]
        await broker.lost("w", is_failure=False)
        report = await broker.next(held)
        assert (report.again, report.lost, report.failure) == (True, False, None)
        assert (await broker.next(ended)).finished
        assert await broker.held("w") == []
        assert await broker.states() == {"waiting": 1, "running": 0, "ended": 2, "failed": 0}
        assert trials(await broker.take("w", None, 99, 0)) == ["c"], waits

    run(scene())


def test_a_failed_trial_fails_the_same_way_when_it_is_tried_again() -> None:
    async def scene() -> None:
        broker = Broker(total=1, concurrent=1, workers=1)
        attempt_id = await broker.submit(request("a"))
        await broker.take("w", None, 99, 5)
        await broker.post({attempt_id: Report(failure="the loss is nan")})
        assert (await broker.next(attempt_id)).failure == "the loss is nan"
        again = await broker.submit(request("a"))
        assert (await broker.next(again)).failure == "the loss is nan"
        assert await broker.decisions([again], 0) == []

    run(scene())


def test_the_trials_of_a_lost_worker_are_told_and_can_be_taken_again() -> None:
    async def scene() -> None:
        broker = Broker(total=1, concurrent=1, workers=1)
        attempt_id = await broker.submit(request("a"))
        await broker.take("w1", None, 99, 5)
        await broker.lost("w1", is_failure=True)
        assert (await broker.next(attempt_id)).lost
        await broker.leave(attempt_id)
        await broker.submit(request("a"))
        again = await broker.take("w2", None, 99, 5)
        assert again is not None
        assert again[0].attempt_id != attempt_id
        assert again[0].checkpoint == {"f": b"x"}

    run(scene())


def test_a_trial_that_cannot_be_packed_after_all_waits_to_run_alone() -> None:
    async def scene() -> None:
        broker = Broker(total=1, concurrent=1, workers=1)
        await broker.submit(request("a"))
        taken = await broker.take("w", None, 99, 5)
        assert taken is not None
        await broker.put_back(taken[0].attempt_id, taken[0])
        again = await broker.take("w", None, 99, 5)
        assert again is not None
        assert (again[0].trial, again[0].key, again[0].checkpoint) == ("a", None, {"f": b"x"})

    run(scene())


def test_workers_are_sent_home_when_the_sweep_is_over() -> None:
    async def scene() -> None:
        broker = Broker(total=1, concurrent=1, workers=1)
        taking = asyncio.create_task(broker.take("w", None, 99, 5))
        await asyncio.sleep(0.01)
        await broker.close()
        assert await taking is None

    run(scene())


def test_every_trial_has_one_state_that_of_its_last_attempt() -> None:
    async def scene() -> None:
        broker = Broker(total=4, concurrent=4, workers=1)
        attempt_ids = {name: await broker.submit(request(name)) for name in "abcd"}
        assert await broker.states() == {"waiting": 4, "running": 0, "ended": 0, "failed": 0}
        await broker.take("w", None, 3, 0)
        await broker.leave(attempt_ids["a"])
        await broker.post({attempt_ids["b"]: Report(failure="diverged")})
        assert await broker.states() == {"waiting": 1, "running": 1, "ended": 1, "failed": 1}
        await broker.lost("w", is_failure=True)
        await broker.submit(request("c"))
        assert await broker.states() == {"waiting": 2, "running": 0, "ended": 1, "failed": 1}

    run(scene())


def test_a_broker_that_was_killed_sends_its_trials_to_the_next_one() -> None:
    """What is asked of the new one about the old one's attempts ends them; the trials are queued again."""

    async def scene() -> None:
        before, now = Broker(total=1, concurrent=1, workers=1), Broker(total=1, concurrent=1, workers=1)
        old = await before.submit(request("a"))
        await before.take("w", None, 99, 5)
        assert (await now.next(old)).again, "which is no failure of the trial's"
        await now.leave(old)
        again = await now.submit(request("a"))
        assert again != old
        await now.post({old: Report({"epoch": 1.0})})
        assert await now.decisions([old], 5) == [], "the worker drops it, and takes the new one"
        assert await now.events() == []
        assert trials(await now.take("w", None, 99, 5)) == ["a"]
        assert (await now.states())["running"] == 1

    run(scene())
