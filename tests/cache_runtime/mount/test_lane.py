from __future__ import annotations

import threading
from functools import partial

from cache_runtime.mount.lane import Job, Lane


def test_jobs_of_many_threads_all_run_and_never_two_at_a_time() -> None:
    lane, inside, done = Lane(), threading.Semaphore(1), []

    def work(number: int) -> None:
        assert inside.acquire(blocking=False)
        done.append(number)
        inside.release()

    def bring(first: int) -> None:
        for number in range(first, first + 500):
            if number % 3:
                lane.submit(Job(number, partial(work, number)))
            elif lane.enter(number):
                work(number)
                lane.leave()
            else:
                lane.submit(Job(number, partial(work, number)))

    threads = [threading.Thread(target=bring, args=(first,)) for first in range(0, 4000, 500)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(done) == list(range(4000))


def test_nobody_waits_for_another_ones_job() -> None:
    lane, go, done = Lane(), threading.Event(), []

    def slow() -> None:
        go.wait(60)
        done.append(1)

    thread = threading.Thread(target=lane.submit, args=(Job(1, slow),))
    thread.start()
    while lane.running != 1:
        pass
    assert not lane.enter(2)
    lane.submit(Job(2, partial(done.append, 2)))  # returns at once
    lane.submit(Job(3, partial(done.append, 3)))
    assert lane.withdraw(3)
    assert lane.withdraw(1)  # it is being worked on: nobody will want its answer
    assert not lane.withdraw(4)
    go.set()
    thread.join(60)
    assert done == [1, 2]
