"""What can be seen of one run's training from outside while it is under way: its processes and its results."""

import threading

from flows.store.files import read_json
from flows.training.checkpoints import is_whole

LOOK_S = 0.5


class Watch(threading.Thread):
    """Looks all the time until it is left.

    Attributes:
        results: every finished result of the stage that was ever there; more than one: it was done twice.
        trainings: how many training processes there were.
        resumable: the step of the newest whole checkpoint when the last of them began; 0: there was none.
    """

    def __init__(self, prefect):
        super().__init__(daemon=True)
        self.prefect, self.store = prefect, prefect.local.store
        self._over, self._pids = threading.Event(), set()
        self.begin()

    def begin(self):
        """Forget what was seen."""
        self.results, self.trainings, self.resumable = [], 0, 0

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self.join()

    def run(self):
        while not self._over.wait(LOOK_S):
            self.look()

    def look(self):
        """One look."""
        pids = {one.pid for one in self.prefect.targets("child")}
        if new := pids - self._pids:
            self.trainings += len(new)
            self.resumable = newest_step(self.store)  # it has not come to its checkpoints yet
        self._pids = pids
        for file in self.store.glob("work/finetune-*/done.json"):
            result = read_json(file)
            if result is not None and result not in self.results:
                self.results.append(result)


def newest_step(store):
    """The step from which training would go on; 0: from the beginning. Nothing is changed."""
    whole = [one for one in store.glob("work/finetune-*/checkpoints/checkpoint-*") if is_whole(one)]
    return max((int(one.name.rpartition("-")[2]) for one in whole), default=0)
