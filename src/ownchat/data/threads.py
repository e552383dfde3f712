"""Channels in which many people talk at once, taken apart: which earlier message does each message answer?

A scorer compares the likely antecedents of a message (the last few, the speaker's own, those of whoever it names, those
that name the speaker) with the possibility that it begins something new, and takes the best. Conversations are what
the links hold together. Kummerfeld et al. 2019, "A Large-Scale Corpus for Conversation Disentanglement" (ACL), is the
source of the task, of the measure and of the annotated logs that the weights were fitted to.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ownchat.data.ledger import Entry
from ownchat.data.talk import Turn

NEAR = 10  # messages before this one that may always be its antecedent
FAR = 120  # messages after which nobody answers any more
MOST_TURNS = 2_000  # a conversation that goes on is cut here
_FORGET = 4_000  # messages between two clean-ups of who is known
_TOKENS = 40  # words in which names are looked for

_WORD = re.compile(r"[^\W_][\w./-]{4,}")
_MINUTE_OF = [sum(minute >= least for least in (1, 2, 4, 8, 15, 30, 60)) for minute in range(61)]
_DISTANCE = [0, 1, 2, 3, 4, 4, *[5] * 4, *[6] * 6, *[7] * 10, *[8] * 25, *[9] * (FAR - 51)]  # of n messages between

# Where each family of features begins among the weights.
_TIES, _MINUTE, _WORDS, _ANSWERED, _SAME, _BOT = 100, 152, 160, 163, 193, 208
_NEW, _LENGTH, _NEW_BOT = 216, 240, 254
FEATURES = 256


@dataclass(eq=False, slots=True)
class Message:
    """A turn as the scorer sees it."""

    turn: Turn
    number: int  # of the message in its channel
    speaker: str
    time: float | None
    to: str | None  # whom it addresses
    names: list[str]  # known speakers that stand in it
    asks: bool
    length: int  # words
    bot: bool  # a bot's, or a command to one
    words: frozenset[str]
    newest: bool = True  # its speaker has said nothing since
    answered_by: str | None = None
    conversation: Conversation | None = None


@dataclass(eq=False, slots=True)
class Conversation:
    """Messages that links hold together."""

    messages: list[Message] = field(default_factory=list)
    closed: bool = False


def take_apart(items: Iterable[Turn | Entry], pause: float) -> Iterator[list[Turn] | Entry]:
    """The conversations of channels, each handed on when nobody can answer it any more; entries pass.

    ``pause`` in seconds ends a conversation. Memory is bounded by the conversations that are open.
    """
    channel, thread = Channel(pause), ""
    for item in items:
        if isinstance(item, Entry):
            yield item
            continue
        if item.thread != thread:
            yield from channel.finish()
            channel, thread = Channel(pause), item.thread
        message = channel.message(item)
        yield from channel.add(message, channel.antecedent(message))
    yield from channel.finish()


class Channel:
    """What is remembered of a channel while it is read."""

    def __init__(self, pause: float) -> None:
        self.pause = pause
        self.number = 0  # of the next message, not counting those in threads of the format
        self.added = 0
        self.recent: list[Message] = []
        self.said: dict[str, list[Message]] = {}  # by a speaker, the last ones
        self.naming: dict[str, list[Message]] = {}  # a speaker, the last ones
        self.partner: dict[str, str] = {}  # with whom somebody spoke last
        self.known: dict[str, str] = {}  # names in lower case -> speaker
        self.ids: dict[str, Message] = {}  # of the export
        self.threads: dict[str, Message] = {}  # of the export, the last message of each
        self.open: dict[Conversation, None] = {}  # in order of their beginning

    def message(self, turn: Turn) -> Message:
        """A turn with whom it names and what it is about."""
        text = turn.text
        tokens = text[:2000].lower().split()
        speaker, known = turn.speaker, self.known
        names: list[str] = []
        to = None
        for place, token in enumerate(tokens[:_TOKENS]):
            name = known.get(token) or known.get(token.strip("@:,;.?!()<>"))
            if name is not None and name != speaker and name not in names:
                names.append(name)
                if place == 0 or (place == 1 and len(tokens[0]) <= 6):  # "hi anna", "thanks anna"
                    to = name
        if names and to is None and known.get(tokens[-1].strip("@:,;.?!()<>")) == names[-1]:
            to = names[-1]
        time = turn.time if turn.time is not None and abs(turn.time) < 1e12 else None
        bot = text[:1] == "!" or speaker.lower().rstrip("0123456789_").endswith(("bot", "ubotu", "serv"))
        return Message(
            turn, self.number, speaker, time, to, names, "?" in text or "？" in text, len(tokens), bot,
            frozenset(_WORD.findall(text[:2000].lower())),
        )  # fmt: skip

    def antecedent(self, message: Message) -> Message | None:
        """What a message answers or goes on with; none: it begins something new."""
        if message.turn.within:
            return self.threads.get(message.turn.within) or self.ids.get(message.turn.within)
        if message.turn.reply_to and (answered := self.ids.get(message.turn.reply_to)) is not None:
            return answered
        weights = WEIGHTS
        one, two, three = self.beginning(message)
        best, found = weights[one] + weights[two] + weights[three], None
        candidates = self.candidates(message)
        for candidate, (a, b, c, d, e, f, g) in zip(candidates, self.features(message, candidates), strict=True):
            score = weights[a] + weights[b] + weights[c] + weights[d] + weights[e] + weights[f] + weights[g]
            if score > best:
                best, found = score, candidate
        return found

    def candidates(self, message: Message) -> list[Message]:
        """Earlier messages that this one may answer."""
        speaker, said = message.speaker, self.said
        found = self.recent[-NEAR:]
        oldest = self.number - NEAR
        older = said.get(speaker, [])[-2:]
        for name in message.names:
            older += said.get(name, [])[-3:]
        older += self.naming.get(speaker, [])[-3:]
        if (partner := self.partner.get(speaker)) is not None:
            older += said.get(partner, [])[-2:]
        for one in older:
            if oldest > one.number >= self.number - FAR and one not in found[NEAR:]:
                found.append(one)
        found = [one for one in found if not one.turn.within]  # a thread that began without saying so
        if message.time is not None and found and found[0].time is not None:
            earliest = message.time - self.pause
            found = [one for one in found if one.time is None or one.time >= earliest]
        return found

    def features(self, message: Message, candidates: list[Message]) -> list[tuple[int, int, int, int, int, int, int]]:
        """Which weights speak for the message answering each candidate: how the two are tied, distance, minutes, words
        in common, whether it was answered, whether it is of the conversation the speaker is in, and bots."""
        speaker, names, number, time, words = (
            message.speaker,
            message.names,
            message.number,
            message.time,
            message.words,
        )
        addressed, bot = message.to is not None, _BOT + message.bot * 4
        partners = self.partner
        partner = partners.get(speaker)
        naming = self.naming.get(speaker)
        mine = self.said.get(speaker)
        current = mine[-1].conversation if mine and number - mine[-1].number < FAR else None
        found = []
        for one in candidates:
            other, to = one.speaker, one.to
            if other == speaker:
                kind, tie = 0, one.newest * 3 + (0 if to is None else 1 if to == message.to else 2)
            elif other in names:
                kind, tie = 1, 6 + one.newest * 3 + (0 if to is None else 1 if to == speaker else 2)
            elif to == speaker or speaker in one.names:
                kind, tie = 2, 12 + one.newest * 2 + (naming is not None and naming[-1] is one)
            elif partner == other:
                kind, tie = 3, 16 + one.newest * 3 + (to is not None)
            else:
                kind, tie = 4, 22 + (to is not None) * 2 + (other in partners)
            distance = number - one.number - 1
            minutes = 0
            if time is not None and one.time is not None:
                minutes = _MINUTE_OF[min(60, max(0, int((time - one.time) // 60)))]
            same = 0 if current is None else 1 if current is one.conversation else 2
            answered = 0 if one.answered_by is None else 1 if one.answered_by == speaker else 2
            shared = 0 if words.isdisjoint(one.words) else min(2, len(words & one.words))
            found.append(
                (
                    (kind * 2 + addressed) * 10 + _DISTANCE[distance],
                    _TIES + tie * 2 + addressed,
                    _MINUTE + minutes,
                    _WORDS + shared,
                    _ANSWERED + (kind * 2 + one.asks) * 3 + answered,
                    _SAME + kind * 3 + same,
                    bot + one.bot * 2 + (distance < 2),
                )
            )
        return found

    def beginning(self, message: Message) -> tuple[int, int, int]:
        """Which weights speak for the message beginning something new."""
        mine = self.said.get(message.speaker)
        gap = message.number - mine[-1].number - 1 if mine else FAR
        silent = min(_DISTANCE[gap] // 2, 5) if gap < FAR else 5
        return (
            _NEW + ((message.to is not None) * 2 + message.asks) * 6 + silent,
            _LENGTH + min(message.length // 3, 6) * 2 + (silent == 5),
            _NEW_BOT + message.bot,
        )

    def add(self, message: Message, antecedent: Message | None) -> Iterator[list[Turn]]:
        """Remember a message; conversations that it ends by its time or place are handed on.

        What stands in a thread of the format is remembered for that thread alone, as if the channel did not hold it.
        """
        conversation = antecedent.conversation if antecedent is not None else None
        if conversation is None or conversation.closed:
            conversation = Conversation()
            self.open[conversation] = None
        message.conversation = conversation
        conversation.messages.append(message)
        if message.turn.id:
            self.ids[message.turn.id] = message
        if thread := message.turn.within:
            self.threads.pop(thread, None)  # to the end: the oldest are forgotten
            self.threads[thread] = message
            if antecedent is not None:
                antecedent.turn.within = thread  # the message that a thread began with may not say so itself
        else:
            self._remember(message, antecedent)
        self.added += 1
        if len(conversation.messages) >= MOST_TURNS:
            yield self._close(conversation)
        if self.added % 50 == 0:
            yield from self._ended(message.time)
        if self.added % _FORGET == 0:
            self._forget()

    def _remember(self, message: Message, antecedent: Message | None) -> None:
        """What the scorer asks for of the messages before."""
        speaker = message.speaker
        if antecedent is not None and antecedent.speaker != speaker:
            antecedent.answered_by = speaker
            self.partner[speaker] = antecedent.speaker
            self.partner[antecedent.speaker] = speaker
        if message.to is not None:
            self.partner[speaker] = message.to
        mine = self.said.setdefault(speaker, [])
        if mine:
            mine[-1].newest = False
        mine.append(message)
        del mine[:-4]
        for name in message.names:
            naming = self.naming.setdefault(name, [])
            naming.append(message)
            del naming[:-4]
        self.recent.append(message)
        if len(self.recent) > 2 * FAR:
            del self.recent[:-FAR]
        if len(mine) == 1:
            self._know(message.turn)
        self.number += 1

    def finish(self) -> Iterator[list[Turn]]:
        """What is still open."""
        for conversation in list(self.open):
            yield self._close(conversation)

    def _know(self, turn: Turn) -> None:
        name = (turn.name or turn.speaker).lower()
        first = name.split(" ", 1)[0]
        for known in (first, turn.speaker.lower(), name):
            if len(known) > 1:
                self.known[known] = turn.speaker

    def _ended(self, now: float | None) -> Iterator[list[Turn]]:
        for conversation in list(self.open):
            last = conversation.messages[-1]
            late = now is not None and last.time is not None and now - last.time > self.pause
            if late or (last.number < self.number - FAR and not (last.turn.within and last.time is not None)):
                yield self._close(conversation)

    def _close(self, conversation: Conversation) -> list[Turn]:
        conversation.closed = True
        del self.open[conversation]
        turns = [message.turn for message in conversation.messages]
        conversation.messages.clear()
        return turns

    def _forget(self) -> None:
        """Let go of who has said nothing for long: memory stays bounded."""
        old = self.number - _FORGET
        self.said = {speaker: mine for speaker, mine in self.said.items() if mine[-1].number >= old}
        self.naming = {speaker: ones for speaker, ones in self.naming.items() if ones[-1].number >= old}
        self.partner = {one: other for one, other in self.partner.items() if one in self.said}
        self.known = {name: speaker for name, speaker in self.known.items() if speaker in self.said}
        self.ids = dict(list(self.ids.items())[-_FORGET:])
        self.threads = dict(list(self.threads.items())[-_FORGET:])


# Fitted to every second training log of Kummerfeld et al. (30 of them, 11,000 messages). On the others: F1 of links
# 74.5 % (the last message of whoever is named, else the one before: 54.1 %), on other channels 69.3 % (62.9 %); exact
# conversations 30.9 % and 30.3 %. `python benchmarks/threads.py --fit` makes them again.
WEIGHTS: tuple[float, ...] = (
    1.07, -0.33, 0.24, 0.16, -0.50, -0.84, -0.94, -0.77, -0.89, -0.88, 1.07, 0.10, 0.80, 0.17, 0.22, -0.88, -1.07,
    -1.10, -0.57, -1.46, -0.56, 0.25, -0.77, 1.21, 0.72, -0.59, -0.20, -0.14, -0.91, -0.87, 0.62, 0.76, 1.89,
    1.80, 1.41, 0.90, 0.35, -0.34, -0.89, -1.52, 0.79, 0.85, 1.37, 1.08, 0.45, 0.11, -0.28, -1.20, -1.15, -1.50,
    -1.54, -0.76, 0.04, 1.08, 1.38, -0.78, -0.05, -0.60, -1.49, -1.37, 1.10, 0.50, 1.01, 0.63, -0.26, -0.44,
    -0.59, -1.32, -1.00, -1.84, 0.95, 0.35, 0.32, -1.07, -0.46, -0.46, -1.24, -1.09, -0.86, -0.58, 0.08, -0.72,
    0.14, 0.06, -0.56, -1.09, 0, 0, 0, 0, 0.23, -1.67, -0.38, -0.57, -1.17, -1.69, 0, 0, 0, 0, -1.02, -2.15, 0,
    -0.75, -1.68, -1.41, 0.80, 1.04, 0, 1.59, 0.70, -1.45, -0.54, 0.02, -0.25, 0.58, -1.72, -1.20, 0.22, 0.74,
    0.88, 1.92, -0.42, -0.95, -0.45, -1.34, 0.65, -2.11, 0.22, -0.32, 0.63, -0.25, 0.26, -0.65, -1.03, -1.29, 0,
    0, 0.55, -0.87, -1.36, -1.33, 0, 0, 0, -1.59, -0.11, -1.66, 0, 0, -1.28, -0.66, 0.58, 0.31, -0.28, -0.81,
    -0.70, -1.32, -1.84, -1.35, -0.71, 0.58, 1.52, 0.36, 0, -0.47, 0.52, 0, -0.77, 0.85, 0.11, 1.39, 1.63, 0.42,
    1.79, 0.14, -0.56, 0.35, 0.61, -0.79, 0.39, -1.25, -1.04, -0.55, -0.14, -1.18, -0.33, -1.13, -0.69, -0.70,
    -0.80, -0.14, -0.18, -0.08, 0.12, 0.23, 0.94, 1.57, 0.40, 0.75, 0.24, -0.61, -1.40, 0.66, -1.62, -0.93, 1.07,
    -1.11, -0.53, 0.62, -1.51, 1.39, -1.82, -0.75, -2.38, 3.64, -0.53, -0.56, -0.62, -0.35, 0.27, 0.22, 0.64,
    1.01, 0.35, 0.25, 1.19, 1.47, -0.24, -0.71, -1.11, -1.79, -0.63, -0.78, -0.04, -0.77, 0.20, -0.16, -0.20,
    0.32, -0.98, 0.34, -1.09, -0.93, -0.65, 0.08, -0.58, 0.12, -0.44, 1.05, -0.13, 1.40, -0.27, 1.31, 0.31, -0.62,
)  # fmt: skip
