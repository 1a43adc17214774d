"""What a process has loaded follows what is wanted, whatever cannot be loaded."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Sequence

from cluster.config import DrafterSection
from cluster.drafter_changes import DrafterChanges
from deployments.drafter_watch import DrafterWatch
from deployments.live_drafters import LiveDrafters
from engine.drafters.drafter import Drafter
from engine.drafters.prompt_lookup import PromptLookupDrafter
from engine.errors import ModelRefusedError

WAIT_S = 20.0


class World:
    def __init__(self, *names: str) -> None:
        self.used: list[list[str]] = []
        self.built: list[str] = []
        self.broken: set[str] = set()
        self.live = LiveDrafters(list(map(made, names)), self.build, self.use)

    def build(self, section: DrafterSection) -> Drafter:
        self.built.append(section.name)
        if section.name in self.broken:
            raise ModelRefusedError(section.name, "no such folder")
        return made(section.name)

    def use(self, drafters: Sequence[Drafter]) -> None:
        self.used.append([drafter.name for drafter in drafters])

    def follow(self, *names: str) -> bool:
        return self.live.follow([DrafterSection(name=name, kind="prompt_lookup") for name in names])


def made(name: str) -> Drafter:
    return PromptLookupDrafter(name, 4)


def test_who_goes_goes_first_and_who_comes_comes_when_it_is_loaded() -> None:
    world = World("a", "b")
    world.follow("b", "c", "d")
    assert world.used == [["b"], ["b", "c"], ["b", "c", "d"]]
    assert world.built == ["c", "d"]
    assert world.live.loaded == {"b", "c", "d"}
    assert not world.live.loading


def test_what_cannot_be_loaded_says_why_stops_nobody_and_is_tried_again() -> None:
    world = World()
    world.broken = {"a"}
    assert not world.follow("a", "b")
    assert world.used[-1] == ["b"]
    assert world.live.refused == {"a": "a: no such folder"}
    world.broken.clear()
    assert world.follow("a", "b")
    assert world.live.loaded == {"a", "b"}
    assert not world.live.refused


class Scripted:
    """Answers in turn, the last one for ever."""

    def __init__(self, *answers: DrafterChanges | None) -> None:
        self.answers = list(answers)

    def read(self) -> DrafterChanges | None:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def followed(*answers: DrafterChanges | None, until: int) -> list[int]:
    versions, done = list[int](), threading.Event()

    def follow(changes: DrafterChanges) -> bool:
        versions.append(changes.version)
        if changes.version == until:
            done.set()
        raise RuntimeError("it goes on")

    watch = DrafterWatch(Scripted(*answers), follow, every_s=0.0)
    assert done.wait(WAIT_S)
    watch.stop()
    return versions


def test_each_version_is_followed_once_and_silence_changes_nothing() -> None:
    one, two = DrafterChanges(version=1), DrafterChanges(version=2)
    assert followed(None, DrafterChanges(), one, None, one, two, until=2) == [1, 2]


def test_what_was_refused_is_tried_again_after_growing_pauses_until_it_is_loaded() -> None:
    world, times, done = World(), list[float](), threading.Event()
    world.broken = {"a"}

    def follow(changes: DrafterChanges) -> bool:
        times.append(time.monotonic())
        if len(times) == 3:
            raise RuntimeError("this is tried again, too")
        if len(times) == 4:
            world.broken.clear()
        is_done = world.follow("a", "b")
        if is_done:
            done.set()
        return is_done

    watch = DrafterWatch(Scripted(DrafterChanges(version=1)), follow, 0.0, first_pause_s=0.01)
    assert done.wait(WAIT_S)
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert all(pause >= least for pause, least in zip(pauses, (0.01, 0.02, 0.04), strict=True))
    assert world.live.loaded == {"a", "b"}
    watch.stop()
    assert (len(times), world.built) == (4, ["a", "b", "a", "a"])


def test_a_new_version_does_not_wait_for_the_next_try() -> None:
    versions, done = list[int](), threading.Event()

    def follow(changes: DrafterChanges) -> bool:
        versions.append(changes.version)
        if changes.version == 2:
            done.set()
        return False

    answers = [DrafterChanges(version=version) for version in (1, 1, 1, 2)]
    watch = DrafterWatch(Scripted(*answers), follow, 0.0, first_pause_s=WAIT_S)
    assert done.wait(WAIT_S / 2)
    watch.stop()
    assert versions == [1, 2]
