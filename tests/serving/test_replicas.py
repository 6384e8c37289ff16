"""Several replicas behind one engine: homes of videos, replicas that end or hang, and what their callers get."""

import asyncio
import functools
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import examples
from hourllava.errors import Cancelled, CheckpointError, EngineBusy
from hourllava.inference.questions.answers import Answer
from hourllava.serving import ray_engine as ray_engine_module
from hourllava.serving import replica as replica_module
from hourllava.serving.homes import MAX_KNOWN, Homes
from hourllava.serving.local import EngineSettings, LocalEngine
from hourllava.serving.protocol import EngineFailure, Question, TextPiece, Video, WatchView
from hourllava.serving.replica import Raised, ReplicaServer, Taken
from serving.in_process import InProcess, ray_engine
from serving.looping import collected, in_loop, until
from serving.scripted import ScriptedModel

SETTINGS = EngineSettings(name="tiny", max_watches=1, max_waiting_watches=1)
QUESTION = Question("What is on the desk?")


def video(number=1):
    return Video("a.mp4", f"sha256:{number}", name="lecture.mp4")


class Cluster:
    """Replicas with scripted models that share a folder.

    Attributes:
        models: of each replica, the last one that was started.
    """

    def __init__(self, folder, num_replicas=2):
        self.models = [None] * num_replicas
        self._folder = folder
        self.replicas = [InProcess(functools.partial(self._engine, number)) for number in range(num_replicas)]

    def _engine(self, number):
        self.models[number] = ScriptedModel(num_frames=20)
        return LocalEngine(self.models[number], self._folder, SETTINGS)

    def hold(self):
        """Frames do not pass any more."""
        for model in self.models:
            model.frames_may_pass.clear()

    def pass_on(self):
        for model in self.models:
            model.frames_may_pass.set()

    def number_of(self, one):
        """The replica that a video is watched at."""
        return next(number for number, model in enumerate(self.models) if model.started and one.path in model.started)

    def kill(self, number):
        self.replicas[number].kill()

    def start(self, number):
        self.replicas[number].start()


@pytest.fixture
def cluster(tmp_path):
    return Cluster(tmp_path / "memories")


@pytest.fixture
def engine(cluster):
    return ray_engine(cluster.replicas)


async def followed(engine, one):
    return await collected(engine.follow(one))


# -------------------------------------------------------------------------------------------------------------- homes


@in_loop
async def test_videos_are_spread_and_their_questions_go_home(engine, cluster):
    videos = [video(number) for number in range(6)]
    for one in videos:
        await collected(engine.ask(one, QUESTION))
    for _ in range(3):
        for one in videos:
            await collected(engine.ask(one, QUESTION))
    assert [len(model.started) for model in cluster.models] == [3, 3]
    status = await engine.status()
    assert (status.num_replicas, status.ready_memories, status.memory_queries) == (2, 6, 24)
    assert status.memory_hits >= 24 - 6  # the first asks watch


@in_loop
async def test_questions_without_a_video_go_where_least_is_open(engine, cluster):
    cluster.models[0].tokens_may_pass.clear()
    asking = engine.ask(None, QUESTION)
    await anext(asking)
    for _ in range(3):
        await collected(engine.ask(None, QUESTION))
    assert [replica.calls.count("ask") for replica in cluster.replicas] == [1, 3]
    await asking.aclose()


def test_the_homes_of_idle_videos_are_forgotten_in_time():
    homes = Homes([None, None])
    busy = homes.known(video("busy"))
    busy.is_begun = True
    for number in range(MAX_KNOWN + 5):
        homes.home(homes.known(video(number)))
    assert sum(slot.num_videos for slot in homes.live) <= MAX_KNOWN
    assert homes.known(video("busy")) is busy


# --------------------------------------------------------------------------------------------------------------- loss


@in_loop
async def test_a_replica_that_ends_in_mid_watch_costs_its_frames_only(engine, cluster):
    cluster.hold()
    one = video()
    assert (await engine.watch(one, keeps_running=True)).attempt == 1
    followers = [engine.follow(one) for _ in range(3)]
    assert [(await anext(follower)).attempt for follower in followers] == [1, 1, 1]
    rest = [asyncio.create_task(collected(follower)) for follower in followers]
    asking = asyncio.create_task(collected(engine.ask(one, QUESTION)))
    await until(lambda: any(model.started for model in cluster.models))
    first = cluster.number_of(one)
    cluster.kill(first)
    await until(lambda: cluster.models[1 - first].started)
    assert (await engine.view(one)).attempt == 2
    cluster.pass_on()
    for views in await asyncio.gather(*rest):
        assert (views[-1].attempt, views[-1].state) == (2, "ready")
        assert sum(view.is_final for view in views) == 1
    events = await asking
    assert isinstance(events[-1], Answer)
    assert len(cluster.models[1 - first].started) == 1


async def lost_in_mid_watch(engine, cluster):
    """A video whose replica has ended while it watched, and the views of somebody who follows the watch."""
    cluster.hold()
    one = video()
    await engine.watch(one, keeps_running=True)
    following = engine.follow(one)
    await anext(following)
    await until(lambda: any(model.started for model in cluster.models))
    cluster.kill(cluster.number_of(one))
    return one, following


@in_loop
async def test_while_nobody_watches_it_again_yet_it_waits(engine, cluster):
    """Who polls must not take the moment between two replicas for the end."""
    one, following = await lost_in_mid_watch(engine, cluster)
    await engine.status()  # any call notices
    view = await engine.view(one)
    assert (view.state, view.attempt) == ("queued", 2)
    await following.aclose()


@in_loop
async def test_a_watch_that_ends_two_replicas_fails_by_name(engine, cluster):
    cluster.hold()
    one = video()
    await engine.watch(one, keeps_running=True)
    follower = asyncio.create_task(followed(engine, one))
    for number in range(2):
        await until(lambda: any(model.started for model in cluster.models))
        now = cluster.number_of(one)
        cluster.models[now].started.clear()
        cluster.kill(now)
        cluster.start(now)
        cluster.hold()
        await until(lambda number=number: number or any(model.started for model in cluster.models))
    last = (await follower)[-1]
    assert (last.state, last.failure.code, last.attempt) == ("failed", "replica_lost", 2)
    assert "lecture.mp4" in last.failure.message


@in_loop
async def test_an_answer_that_has_begun_fails_and_one_that_has_not_is_asked_again(engine, cluster):
    one = video()
    await collected(engine.ask(one, QUESTION))
    first = cluster.number_of(one)
    cluster.models[first].tokens_may_pass.clear()
    begun = engine.ask(one, QUESTION)
    assert isinstance(await anext(begun), TextPiece)
    cluster.kill(first)
    with pytest.raises(EngineFailure) as raised:
        await collected(begun)
    assert raised.value.code == "replica_lost"
    events = await collected(engine.ask(one, QUESTION))
    assert not any(isinstance(event, WatchView) for event in events)  # its memory lies in the common folder
    assert isinstance(events[-1], Answer)
    assert (await engine.choose(one, QUESTION, ["a", "b"])).letter == "A"


@in_loop
async def test_a_lost_replica_comes_back(engine, cluster):
    cluster.kill(0)
    cluster.kill(1)
    for call in (engine.view(video()), engine.find(video(), "a lamp"), collected(engine.ask(video(), QUESTION))):
        with pytest.raises(EngineFailure) as raised:
            await call
        assert raised.value.code == "replica_lost"
    assert [view.state for view in await followed(engine, video())] == ["failed"]
    with pytest.raises(EngineFailure):
        await engine.status()  # it never answered
    cluster.start(1)
    await until(lambda: has_replicas(engine, 1))
    assert isinstance((await collected(engine.ask(video(), QUESTION)))[-1], Answer)
    cluster.kill(1)
    await until(lambda: has_replicas(engine, 0))
    cluster.start(0)
    cluster.start(1)
    await until(lambda: has_replicas(engine, 2))


async def has_replicas(engine, number):
    try:
        return (await engine.status()).num_replicas == number
    except EngineFailure:
        return False


def test_a_replica_that_takes_no_call_is_lost(cluster):
    @in_loop
    async def hangs(engine):
        one = video()
        await collected(engine.ask(one, QUESTION))
        cluster.replicas[cluster.number_of(one)].hangs = True
        assert isinstance((await collected(engine.ask(one, QUESTION)))[-1], Answer)
        assert (await engine.status()).num_replicas == 1

    hangs(engine=ray_engine(cluster.replicas, take_seconds=0.05))


@in_loop
async def test_a_watch_that_is_cancelled_between_two_replicas_stays_cancelled(engine, cluster):
    one, following = await lost_in_mid_watch(engine, cluster)
    await engine.cancel_watch(one)
    assert (await collected(following))[-1].state == "cancelled"
    assert await engine.view(one) is None


@in_loop
async def test_a_process_that_was_started_again_unseen_is_noticed(engine, cluster):
    """Between two calls: the new process watches nothing, and to say so would be the end for those who follow."""
    cluster.hold()
    one = video()
    await engine.watch(one, keeps_running=True)
    await until(lambda: any(model.started for model in cluster.models))
    number = cluster.number_of(one)
    cluster.kill(number)
    cluster.start(number)
    cluster.pass_on()
    last = (await followed(engine, one))[-1]
    assert (last.state, last.attempt) == ("ready", 2)


# ------------------------------------------------------------------------------------------------------- backpressure


@in_loop
async def test_what_a_full_replica_says_reaches_the_caller(engine, cluster):
    """At a home of its own: two videos run, two wait, and the fifth is refused with a time."""
    cluster.hold()
    for number in range(4):
        await engine.watch(video(number), keeps_running=True)
    with pytest.raises(EngineBusy) as raised:
        await engine.watch(video(4))
    assert 1 <= raised.value.retry_after_seconds <= 120
    for number in range(4):
        await engine.cancel_watch(video(number))


@in_loop
async def test_a_watch_that_begins_again_waits_for_a_place(engine, cluster, monkeypatch):
    monkeypatch.setattr(ray_engine_module, "MAX_BUSY_SECONDS", 0.01)
    cluster.hold()
    for number in range(4):
        await engine.watch(video(number), keeps_running=True)
    follower = asyncio.create_task(followed(engine, video(0)))
    await until(lambda: cluster.models[0].started)
    cluster.kill(0)
    await until(lambda: cluster.replicas[1].calls.count("watch") > 3)  # 1, 3, and 0 in vain
    for number in (1, 3):
        await engine.cancel_watch(video(number))
    cluster.pass_on()
    assert (await follower)[-1].state == "ready"


# ------------------------------------------------------------------------------------------------------------ the end


@in_loop
async def test_the_end_of_the_engine_ends_its_callers(engine, cluster):
    cluster.hold()
    asking = asyncio.create_task(collected(engine.ask(video(), QUESTION)))
    follower = asyncio.create_task(followed(engine, video()))
    await until(lambda: any(model.started for model in cluster.models))
    await engine.close()
    assert (await follower)[-1].state == "cancelled"
    with pytest.raises((Cancelled, EngineFailure)):
        await asking


@in_loop
async def test_a_model_that_cannot_be_loaded_is_told_to_every_call():
    def fails():
        raise CheckpointError("missing/model is no checkpoint")

    server = ReplicaServer(fails)
    taken, raised = await collected(server.call("status"))
    assert isinstance(taken, Taken)
    assert isinstance(raised, Raised)
    assert isinstance(raised.error, CheckpointError)


@examples(60)
@given(
    items=st.lists(st.one_of(st.text(min_size=1, max_size=3).map(TextPiece), st.sampled_from(["progress", "answer"]))),
    ticks=st.lists(st.floats(0, 0.1), min_size=12, max_size=12),
    fails=st.booleans(),
)
def test_joined_texts_say_the_same_in_the_same_order(items, ticks, fails):
    """Whatever the clock says, and whether the stream ends or fails; texts that are apart in time stay apart."""
    clock = itertools.accumulate(itertools.cycle(ticks))

    async def given_items():
        for item in items:
            yield item
        if fails:
            raise CheckpointError("there")

    async def run():
        found = []
        try:
            async for item in replica_module.joined_texts(given_items()):
                found.append(item)
        except CheckpointError:
            assert fails
        else:
            assert not fails
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replica_module.time, "monotonic", lambda: next(clock))
        found = asyncio.run(run())

    def runs(stream):
        groups = itertools.groupby(stream, lambda item: isinstance(item, TextPiece))
        return ["".join(item.text for item in group) if is_text else list(group) for is_text, group in groups]

    assert runs(found) == runs(items)
    texts = [item for item in items if isinstance(item, TextPiece)]
    assert found[:1] == items[:1]
    if min(ticks) > replica_module.TEXT_SECONDS:
        assert found == items
    if sum(ticks) * (len(texts) // 12 + 1) < replica_module.TEXT_SECONDS:
        assert sum(isinstance(item, TextPiece) for item in found) <= 1 + len(
            [run for run in runs(items) if isinstance(run, str)]
        )
