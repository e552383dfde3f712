"""Channels are taken apart: links by name, by answer and by id; memory and order; the measured quality."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ownchat.data import threads
from ownchat.data.ledger import Entry
from ownchat.data.talk import Turn, not_a_turn
from ownchat.data.threads import FEATURES, MOST_TURNS, WEIGHTS, Channel, take_apart

HOUR = 3600.0
DATASETS = Path(os.environ.get("OWNCHAT_DATASETS", Path(__file__).parents[2] / ".." / "shared" / "datasets"))


def talk(*lines: str) -> list[Turn]:
    parts = [line.split(": ", 1) for line in lines]
    return [Turn(one[0], one[1], n, 1e9 + 20 * n) for n, one in enumerate(parts, 1)]


def lines(items: list[Turn | Entry], pause: float = 6 * HOUR) -> list[list[int]]:
    return [[turn.line for turn in part] for part in take_apart(items, pause) if not isinstance(part, Entry)]


def test_two_questions_at_once_are_taken_apart():
    channel = talk(
        "ann: how do I mount a usb disk?",
        "bob: my sound card does not work after the upgrade, any ideas?",
        "cid: ann: it should mount by itself when you plug it in",
        "dan: bob: which card is it?",
        "ann: cid: nothing happens when I plug it in",
        "bob: dan: an old creative one",
        "cid: ann: look into dmesg then",
        "dan: bob: try alsamixer, it is often muted",
    )
    assert lines(channel) == [[1, 3, 5, 7], [2, 4, 6, 8]]


def test_a_reply_that_the_format_tells_is_believed():
    items = talk("ann: one topic here?", "bob: another topic there?", "cid: yes indeed")
    items[0].id, items[2].reply_to = "m1", "m1"
    assert lines(items) == [[1, 3], [2]]


def test_a_pause_and_another_channel_end_everything():
    items = talk("ann: why?", "bob: ann: so", "ann: bob: thanks", "bob: ann: welcome")
    for turn in items[2:]:
        turn.time += 7 * HOUR
    assert lines(items) == [[1, 2], [3, 4]]
    for turn in items:
        turn.thread, turn.time = ("one" if turn.line < 3 else "two"), None
    assert lines(items) == [[1, 2], [3, 4]]


def test_entries_pass_and_long_conversations_are_cut():
    entry = not_a_turn("a.log", 1, "server")
    assert list(take_apart([entry], HOUR)) == [entry]
    items = talk(*(f"{'ann' if n % 2 else 'bob'}: {'bob' if n % 2 else 'ann'}: number {n}" for n in range(5000)))
    parts = lines(items)
    assert sum(map(len, parts)) == 5000 and max(map(len, parts)) <= MOST_TURNS


def test_what_is_remembered_is_bounded():
    channel = Channel(HOUR)
    open_ones = 0
    for number in range(12_000):
        message = channel.message(Turn(f"nick{number}", f"question {number}?", number, id=str(number)))
        list(channel.add(message, channel.antecedent(message)))
        open_ones = max(open_ones, len(channel.open))
    assert open_ones < 200 and len(channel.recent) <= 240
    assert max(map(len, (channel.said, channel.known, channel.ids, channel.partner))) <= 8_001


def test_every_feature_has_its_weight():
    assert len(WEIGHTS) == FEATURES


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.builds(
            Turn,
            st.sampled_from(["ann", "bob", "cid", "Ubot"]),
            st.sampled_from(["ann: so?", "bob, no", "!help | cid", "why", "", "@cid yes", "?", "thanks ann"]),
            st.integers(1, 9),
            time=st.none() | st.floats() | st.integers(0, 10**5).map(float),
            id=st.sampled_from(["", "a", "b"]),
            reply_to=st.sampled_from(["", "a", "q"]),
        ),
        max_size=150,
    )
)
def test_every_turn_is_in_one_conversation_in_order(turns):
    parts = [part for part in take_apart(turns, HOUR) if not isinstance(part, Entry)]
    places = {id(turn): place for place, turn in enumerate(turns)}
    assert sorted(places[id(turn)] for part in parts for turn in part) == list(range(len(turns)))
    assert all(sorted(part, key=lambda turn: places[id(turn)]) == part for part in parts)


@pytest.mark.skipif(not DATASETS.is_dir(), reason="the shared datasets are not here (set OWNCHAT_DATASETS)")
def test_links_that_people_marked_are_found_in_held_out_logs():
    from importlib import util

    spec = util.spec_from_file_location("bench_threads", Path(__file__).parents[2] / "benchmarks" / "threads.py")
    bench = util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    paths = sorted((DATASETS / "ubuntu_irc" / "train").glob("*.raw.*"))[1::2][:6]
    logs = [bench.load(path) for path in paths]
    found = bench.measure(logs, lambda channel, message: channel.antecedent(message))
    simple = bench.measure(logs, bench.mentioned_or_previous)
    assert found["links"]["f1"] > 70 > simple["links"]["f1"] + 10
    assert found["conversations"]["f1"] > 20
    assert threads.FAR == 120


def test_a_thread_of_the_format_holds_its_own_replies_only():
    items = talk(
        "ann: a vpn question?",
        "bob: press reset",
        "cid: who comes to lunch?",
        "bob: yes at noon",
        "dan: me too",
        "ann: thanks",
        "cid: see you",
    )
    for turn in items:
        turn.id = f"m{turn.line}"
    for place in (0, 1, 5):
        items[place].within = "m1"
    apart = lines(items)
    for turn in items:
        turn.id, turn.within = "", ""
    assert apart[0] == [1, 2, 6]
    alone = lines([items[n] for n in (2, 3, 4, 6)])
    assert apart[1:] == alone  # the thread changes nothing in the channel


def test_a_thread_whose_beginning_is_missing_or_does_not_say_so():
    items = talk("ann: a vpn question?", "bob: press reset", "ann: thanks", "eve: pumps?", "fay: eve: in the cellar")
    items[0].id = "m1"
    for turn in items[1:3]:
        turn.within = "m1"
    assert lines(items) == [[1, 2, 3], [4, 5]]
    items[0].id = items[0].within = ""
    assert [2, 3] in lines(items)
