"""A name moves to another model as one transaction: what served before goes on serving until `commit`.

    with Promotion(config, model_dir, endpoints_dir, maker) as promotion:
        promotion.start(progress)  # beside what serves now; returns when it has answered
        ...                        # checks of promotion.candidate against promotion.current
        promotion.commit()

Left in any other way (an error, a cancelled run), the candidate is ended and forgotten. Who is killed in between leaves
the record `NAME.next`: the next start, stop or look of the watcher ends what it names.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from flows.errors import ServingError
from flows.progress import Progress, silent
from flows.serving import probe, records, replicas, revisions, start
from flows.serving.config import ServeConfig
from flows.serving.endpoint import Endpoint
from flows.serving.front import following, lifecycle, traffic
from flows.serving.front.record import FrontRecord
from flows.serving.registry import RUNTIMES
from flows.serving.revisions import Revision
from flows.serving.state import State
from flows.serving.stop import end, end_behind, end_leftovers

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Maker:
    """Who promotes what: the run, the model's place in the store, and what tells how good it is.

    `evaluation` is the folder of an evaluation with its held-out questions, empty if none is known. `again` is for a
    roll-back: the number of the revision that is taken up again.
    """

    run_id: str = ""
    run_url: str = ""
    model_uri: str = ""
    evaluation: str = ""
    again: int = 0


class Promotion:
    """One move of a name.

    Attributes:
        current: what serves under the name and is alive; None if nothing is.
        candidate: what was started beside it, healthy; None before `start` and after the end.
        serving: what serves in the end: the candidate once it is committed, or `current` if `start` found that it
            serves this model with these settings already.
    """

    def __init__(self, config: ServeConfig, model_dir: Path, endpoints_dir: Path, maker: Maker = Maker()) -> None:
        self.config = start.with_image(config)
        self.model_dir = model_dir if model_dir == Path() else model_dir.expanduser().resolve()
        self.endpoints_dir = endpoints_dir
        self.maker = maker
        self.current: Endpoint | None = None
        self.candidate: Endpoint | None = None
        self.serving: Endpoint | None = None
        self._before = 0
        self._progress: Progress = silent
        self._held = ExitStack()

    def __enter__(self) -> Promotion:
        """Check the settings and hold the name; waits for another promotion of it.

        Raises:
            ServingError: settings that cannot work, no such folder, no whole model in it, or the old process could not
                be ended.
        """
        start.check(self.config, self.model_dir)
        self._held.enter_context(records.starting(self.endpoints_dir, self.config.name))
        try:
            old = records.load(self.endpoints_dir, self.config.name)
            end_leftovers(self.config.name, self.endpoints_dir, serving=old)
        except BaseException:
            self._held.close()
            raise
        self._before = old.revision if old else 0
        self.current = old
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End a candidate that was not committed, and let go of the name."""
        with self._held:
            self._abandon()

    def start(self, progress: Progress) -> Endpoint:
        """Start the model beside what serves now.

        Progress counts seconds of the startup budget.

        Returns:
            The candidate, HEALTHY (UNVERIFIED, if it has no health path); or what serves this model already.

        Raises:
            ServingError: the wanted port is taken, or the old process could not be ended.
            StartError: the server ended, answered wrongly or was not healthy within the budget; cause and log lines.
        """
        config, current, self._progress = self.config, self.current, progress
        if current and self._serves_already(current):
            progress(1, 1, f"{current.name} serves this model already")
            self.serving = self._watched(current)
            return self.serving
        if current and not RUNTIMES[current.runtime].alive(current.process):
            end(current)  # its workers may have outlived it
            self.current = None
        if current is None or current.front is None:
            self._front()  # now: what cannot work is known before a model is loaded
        made, launch = start.launch_beside(config, self.model_dir, self.endpoints_dir, progress, current=self.current)
        maker = {"run_id": self.maker.run_id, "run_url": self.maker.run_url, "model_uri": self.maker.model_uri}
        self.candidate = made.model_copy(update=maker)
        records.save(self.endpoints_dir, self.candidate)
        budget_s = config.startup_budget_s or launch.startup_budget_s
        self.candidate = start.wait_until_healthy(self.candidate, launch, budget_s, progress)
        return self.candidate

    def share(self, percent: int) -> None:
        """Give the candidate that part of the front's new requests, and the current model the rest.

        Raises:
            ServingError: the front does not run, or there is none.
        """
        assert self.candidate is not None
        servers = self._servers_of_current()
        # Weights count for one server, so those of the current model's servers have a part of its share each.
        rest = max(round((100 - percent) / len(servers)), percent < 100) if servers else 0
        traffic.route(self._asked(), dict.fromkeys(servers, rest) | {following.address(self.candidate): percent})

    def statistics(self) -> dict[str, traffic.ServerStats]:
        """What the front has seen of both, by `candidate` and `current`.

        Raises:
            ServingError: the front does not run, or there is none.
        """
        assert self.candidate is not None
        seen = traffic.statistics(self._asked())
        both = {"candidate": [following.address(self.candidate)], "current": self._servers_of_current()}
        found = {who: [seen[server] for server in servers if server in seen] for who, servers in both.items()}
        return {who: traffic.together(stats) for who, stats in found.items() if stats}

    def commit(self) -> Endpoint:
        """Move the name to the candidate, then end the old one; the endpoint that serves now.

        With a front the candidate gets all new requests first, and the old one has `drain_s` for its running ones.
        Killed at any point, no process is without a record.
        """
        if self.candidate is None:
            raise ServingError(f"Nothing was started for {self.config.name}, so its name cannot move.")
        new, name, folder = self.candidate, self.config.name, self.endpoints_dir
        front = self._front()
        following.send_all_to(new, front)
        number = revisions.keep(folder, self._revision(new), self._before)
        serving = new.model_copy(update={"name": name, "revision": number, "front": front})
        if self.current:
            records.save(folder, self.current.model_copy(update={"name": name + records.PREVIOUS}))
        records.save(folder, serving)
        self.candidate, self.serving = None, serving
        records.delete(folder, new.name)
        end_leftovers(name, folder, serving=serving)
        self._bring_up_replicas(serving)
        return serving

    def _servers_of_current(self) -> list[str]:
        """Addresses of the current model's server and replicas."""
        if self.current is None:
            return []
        return following.servers(self.current, records.beside(self.endpoints_dir, self.config.name))

    def _bring_up_replicas(self, serving: Endpoint) -> None:
        """Start the replicas and wait for them; what goes wrong with them is not the promotion's, but the watcher's."""
        if serving.front is None:
            return
        budget_s = self.config.startup_budget_s or replicas.REPLICAS_BUDGET_S
        try:
            replicas.bring_up(serving, self.endpoints_dir, budget_s, self._progress)
        except ServingError as error:
            logger.error("The replicas of %s: %s", serving.name, error)

    def _serves_already(self, current: Endpoint) -> bool:
        same = current.settings == start.settings_digest(self.config, self.model_dir)
        return same and probe.check(current).state in (State.HEALTHY, State.UNVERIFIED)

    def _watched(self, current: Endpoint) -> Endpoint:
        """What serves already, from now on watched as the settings say."""
        front = self._front()
        if (current.watch, current.front) == (self.config.watch, front):
            self._bring_up_replicas(current)
            return current
        revisions.amend(self.endpoints_dir, current.name, current.revision, self.config)
        new = current.model_copy(update={"watch": self.config.watch, "front": front})
        following.share(new, records.beside(self.endpoints_dir, new.name))
        records.save(self.endpoints_dir, new)
        following.settle(new.name, self.endpoints_dir, new)
        self._bring_up_replicas(new)
        return new

    def _front(self) -> FrontRecord | None:
        """The front as the settings say, running; None if they want none."""
        return lifecycle.ensure(self.config, self.endpoints_dir) if self.config.front.enabled else None

    def _asked(self) -> FrontRecord:
        """The front that clients ask now."""
        front = (self.current.front if self.current else None) or self._front()
        if front is None:
            raise ServingError(f"{self.config.name} has no front that could share its traffic. Switch serve.front on.")
        return front

    def _abandon(self) -> None:
        left, self.candidate = self.candidate, None
        if self.serving is not None:
            return
        front = following.settle(self.config.name, self.endpoints_dir, self.current)
        if left is None:
            return
        end_behind(front, left)
        records.delete(self.endpoints_dir, left.name)

    def _revision(self, new: Endpoint) -> Revision:
        """What is about to serve, not numbered yet."""
        return Revision(
            number=0,
            promoted=datetime.now(UTC).isoformat(timespec="seconds"),
            model_dir=new.model_dir,
            model_uri=new.model_uri,
            evaluation=self.maker.evaluation,
            config=self.config,
            run_id=new.run_id,
            run_url=new.run_url,
            again=self.maker.again,
        )


def start_endpoint(
    config: ServeConfig, model_dir: Path, endpoints_dir: Path, progress: Progress, maker: Maker = Maker()
) -> Endpoint:
    """Serve `model_dir` under `config.name` as soon as it has answered a question, without further checks.

    A healthy endpoint of that name with the same model and settings is used again.

    Raises:
        ServingError: see `Promotion`.
        StartError: it did not become healthy; what served before goes on serving.
    """
    with Promotion(config, model_dir, endpoints_dir, maker) as promotion:
        promotion.start(progress)
        return promotion.serving or promotion.commit()
