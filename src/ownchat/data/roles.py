"""Who is the assistant in a talk, with the reason for people.

What the format or the user says comes first; then names that speak for themselves ("Agent", "Kundin"); only then is
it guessed: the account's owner, the voice that answers most, or the second speaker of each conversation.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from ownchat.config import DataConfig
from ownchat.data.ledger import Entry
from ownchat.data.talk import Talk, Turn

LOOKED_AT = 200_000  # turns of the first pass
CROWD = 20_000  # turns of it in a channel, where there is less to find out
GIVEN = 2_000  # turns that all have a role of their own: the format says it, nothing is left to find out
GROUPS = 10  # fewer customers or threads than this are too few to be dealt out to three splits as wholes
FLAGGED = 0.15  # share of a channel's turns from which on the flagged speakers are its staff, not a bot that helps out

NAMED = 0.1  # share of the turns below which "Tutor" is a minor part in a play

_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
_ANSWERING = (
    "agent agents support supporter assistant bot chatbot operator advisor adviser staff helpdesk servicedesk desk "
    "representative rep moderator specialist consultant expert doctor teacher tutor therapist counselor interviewee "
    "clerk seller shop assistent assistentin berater beraterin mitarbeiter mitarbeiterin kundendienst kundenservice "
    "kundenbetreuer verkäufer agente soporte asistente operador operadora asesor asesora vendedor "
    "conseiller conseillère opérateur opératrice vendeur assistente operatore operatrice consulente venditore suporte "
    "atendente medewerker klantenservice handläggare rådgivare kundtjänst säljare rådgiver kundeservice konsulent "
    "neuvoja asiakaspalvelu konsultant doradca оператор агент поддержка консультант бот ассистент менеджер "
    "ai chatgpt gpt gemini copilot temsilci destek asistan "
    "सहायक एजेंट موظف وكيل دعم مساعد 客服 助手 坐席 助理 オペレーター サポート 担当者 상담원 상담사"
)
_OFFICES = (  # of a company, whatever stands beside them: "Acme Support" is nobody's friend
    "support helpdesk servicedesk agent agents bot chatbot kundendienst kundenservice soporte suporte klantenservice "
    "kundtjänst kundeservice asiakaspalvelu поддержка бот destek 客服 サポート"
)
_ASKING = (
    "customer client user visitor caller guest human buyer patient student pupil interviewer shopper subscriber member "
    "kunde kundin nutzer nutzerin benutzer besucher besucherin anrufer käufer patientin cliente usuario usuaria "
    "visitante comprador utilisateur utilisatrice visiteur acheteur utente visitatore acquirente usuário usuária "
    "klant gebruiker bezoeker kund användare besökare bruger bruker asiakas käyttäjä klient klientka użytkownik "
    "клиент пользователь посетитель покупатель müşteri kullanıcı ग्राहक उपयोगकर्ता عميل مستخدم زبون 客户 顾客 用户 客戶 "
    "用戶 お客様 顧客 ユーザー 고객 사용자"
)
_NOTICES = ("system", "info", "notice", "notification", "server")
_SIDE = dict.fromkeys(_ASKING.split(), "asking") | dict.fromkeys(_ANSWERING.split(), "answering")
_OFFICE = frozenset(_OFFICES.split())
_BESIDE = ("service", "team", "the", "our", "live")  # words that do not make a person's name of a side's
_WORDS = re.compile(r"[^\s\d_.,:;!?()\[\]<>{}#@/\\|\"'*+=~-]+")  # not \\w: it leaves out the vowel signs of Hindi

Otherwise = Literal["user", "assistant", "second", "opener"]
Said = Literal["answering", "asking", "notice", ""]


@dataclass
class Roles:
    """The decision for one talk. ``otherwise`` is what a speaker is of whom nothing is known: of the two that depend
    on the conversation, "second" makes its second speaker the assistant, "opener" everybody but the first."""

    assistants: frozenset[str] = frozenset()
    otherwise: Otherwise = "user"
    by_flag: bool = False  # who the format calls staff is the assistant
    by_name: bool = False  # names speak for themselves
    wholly: bool = False  # only those in which nothing else stands
    names: frozenset[str] = frozenset()  # that the user gave
    domains: tuple[str, ...] = ()
    notices: bool = False  # "System" beside agents and customers only announces
    groups: Literal["thread", "party", ""] = ""
    notes: list[str] = field(default_factory=list)
    threads: frozenset[str] = frozenset()  # chats that this decision is for, if there is one for the others
    elsewhere: Roles | None = None
    _known: dict[tuple[str, str, bool], str] = field(default_factory=dict)

    def of(self, turns: Sequence[Turn]) -> list[str]:
        """The role of each turn of one conversation; empty for a notice, which nobody says."""
        if self.elsewhere is not None and not any(turn.thread in self.threads for turn in turns):
            return self.elsewhere.of(turns)
        roles = [_ROLES.get(turn.role) or self._speaker(turn) for turn in turns]
        if "?" not in roles:
            return [role if role != "notice" else "" for role in roles]
        first = next(turn.speaker for turn, role in zip(turns, roles, strict=True) if role == "?")
        others = (turn.speaker for turn, role in zip(turns, roles, strict=True) if role == "?")
        second = next((speaker for speaker in others if speaker != first), None)
        for place, turn in enumerate(turns):
            if roles[place] == "?":
                answers = turn.speaker == second if self.otherwise == "second" else turn.speaker != first
                roles[place] = "assistant" if answers else "user"
        return [role if role != "notice" else "" for role in roles]

    def _speaker(self, turn: Turn) -> str:
        key = (turn.speaker, turn.name, turn.answer)
        known = self._known.get(key)
        if known is None:
            if len(self._known) > LOOKED_AT:
                self._known.clear()
            known = self._known[key] = self._find(turn)
        return known

    def _find(self, turn: Turn) -> str:
        if turn.speaker in self.assistants or is_meant(turn, self.names, self.domains):
            return "assistant"
        if self.by_flag and turn.answer:
            return "assistant"
        if self.by_name:
            said = what_a_name_says(turn.name or turn.speaker, wholly=self.wholly)
            if said == "notice":
                return "notice" if self.notices else "assistant"
            if said:
                return "assistant" if said == "answering" else "user"
        return "?" if self.otherwise in ("second", "opener") else self.otherwise


def find_roles(talk: Talk, data: DataConfig) -> Roles:
    """Decide from the first turns of a talk (up to :data:`LOOKED_AT`)."""
    seen = _look(talk, data.pause_hours * 3600)
    roles = _decide(talk, data, seen, frozenset())
    roles.groups = _groups(talk, seen, roles)
    return roles


def what_a_name_says(name: str, *, wholly: bool = False) -> Said:
    """Whether a speaker's name tells the side: whole words, in the large languages.

    ``wholly``: nothing else may stand in it ("Emma Tutor" is a person in somebody's address book), but beside the name
    of an office ("Acme Support").

    >>> what_a_name_says("Support Agent 2"), what_a_name_says("customer"), what_a_name_says("Userland")
    ('answering', 'asking', '')
    """
    words = _WORDS.findall(name.casefold().split("@", 1)[0] or name.casefold())  # not the domain: anna@shop.example
    if len(words) == 1 and words[0] in _NOTICES:
        return "notice"
    sides = [_SIDE.get(word, "") for word in words if word not in _BESIDE]
    if (wholly and "" in sides and _OFFICE.isdisjoint(words)) or (
        words[:1] == ["ai"] and len(words) > 1
    ):  # Ai is a Japanese first name
        return ""
    if "answering" in sides or ("service" in words and len(words) > 1):  # "customer support", "Room Service"
        return "answering"
    return "asking" if "asking" in sides else ""


def is_meant(turn: Turn, names: frozenset[str], domains: Sequence[str]) -> bool:
    """Whether the user's ``--assistant`` or the domains of ``data.assistant_domain`` mean this speaker."""
    if names and (_plain(turn.speaker) in names or _plain(turn.name) in names):
        return True
    host = turn.speaker.rpartition("@")[2].casefold().rstrip(">") if domains and "@" in turn.speaker else ""
    return bool(host) and any(host == domain or host.endswith(f".{domain}") for domain in domains)


# ------------------------------------------------------------------------------------------------- the first pass


@dataclass
class _Seen:
    """What the first pass counts, for each speaker."""

    turns: Counter[str] = field(default_factory=Counter)
    names: dict[str, str] = field(default_factory=dict)
    flagged: Counter[str] = field(default_factory=Counter)
    conversations: Counter[str] = field(default_factory=Counter)  # took part
    opened: Counter[str] = field(default_factory=Counter)
    replied: Counter[str] = field(default_factory=Counter)  # to a question of somebody else
    order: list[str] = field(default_factory=list)  # the first two speakers of the talk
    number: int = 0
    threads: int = 0
    given: int = 0
    met: list[Turn] = field(default_factory=list)  # one turn of each speaker
    inside: dict[str, Counter[str]] = field(default_factory=dict)  # each thread, who speaks in it
    staffed: set[str] = field(default_factory=set)  # threads in which somebody is flagged

    @property
    def total(self) -> int:
        return sum(self.turns.values())


def _look(talk: Talk, pause: float, without: frozenset[str] = frozenset()) -> _Seen:
    seen = _Seen()
    thread: str | None = None
    last: Turn | None = None
    inside: set[str] = set()
    for turn in talk.turns():
        if isinstance(turn, Entry) or turn.thread in without:
            continue
        if turn.role in _ROLES:
            seen.given += 1
        speaker = turn.speaker
        if turn.thread != thread:
            seen.threads += 1
        paused = last is not None and turn.time is not None and last.time is not None and turn.time - last.time > pause
        if last is None or turn.thread != thread or (paused and not talk.threads_are_whole):
            thread, last, inside = turn.thread, None, set()
            seen.number += 1
            seen.opened[speaker] += 1
        if speaker not in inside:
            inside.add(speaker)
            seen.conversations[speaker] += 1
        if last is not None and last.speaker != speaker and ("?" in last.text or "？" in last.text):
            seen.replied[speaker] += 1
        if speaker not in seen.turns:
            seen.names[speaker] = turn.name or speaker
            seen.met.append(turn)
            seen.order.append(speaker)
        seen.turns[speaker] += 1
        seen.inside.setdefault(turn.thread, Counter())[speaker] += 1
        if turn.answer:
            seen.flagged[speaker] += 1
            seen.staffed.add(turn.thread)
        last = turn
        count = seen.total if len(seen.turns) < 50 else sum(seen.conversations.values())
        if count >= (CROWD if talk.crowd else LOOKED_AT) or (count >= GIVEN and seen.given >= count):
            break
    return seen


def _decide(talk: Talk, data: DataConfig, seen: _Seen, without: frozenset[str]) -> Roles:
    """``without``: the threads that are decided already, and not among those seen."""
    if seen.given and seen.given == seen.total:
        return Roles()
    names = frozenset(_plain(name) for name in data.assistant)
    domains = tuple(domain.casefold().lstrip("@") for domain in data.assistant_domain)
    notes: list[str] = []
    if names or domains:
        meant = [turn.speaker for turn in seen.met if is_meant(turn, names, domains)]
        if meant:
            return Roles(names=names, domains=domains, notes=[f"assistant: {_listed(meant, seen)} (as you said)"])
        wanted = ", ".join([*data.assistant, *data.assistant_domain])
        notes.append(f"{wanted}: nobody here is called so; the speakers are {_listed(_often(seen), seen)}")
    flagged = [speaker for speaker in _often(seen) if seen.flagged[speaker]]
    staff = sum(seen.flagged.values()) >= FLAGGED * seen.total
    if flagged and (staff or not talk.crowd) and len(flagged) < len(seen.turns):
        notes.append(_note(flagged, seen, "the format says so"))
        roles = Roles(by_flag=True, names=names, domains=domains, notes=notes)
        return _with_others(roles, talk, data, seen, flagged, without)
    if talk.crowd and not notes:
        why = "in each conversation of the channel, those who answer whoever began; to change: --assistant NAME"
        return Roles(otherwise="opener", notes=[f"assistant: {why}"])
    if (named := _by_names(seen, wholly=talk.owner in seen.turns)) is not None:
        named.notes[:0] = notes
        answering = [turn.speaker for turn in seen.met if named.of([turn]) == ["assistant"]]
        return _with_others(named, talk, data, seen, answering, without)
    if notes:  # who is meant was said, and is not here: a guess would train somebody else
        return Roles(names=names, domains=domains, notes=notes)
    return _guess(talk, seen)


def _with_others(
    roles: Roles, talk: Talk, data: DataConfig, seen: _Seen, speakers: Sequence[str], without: frozenset[str]
) -> Roles:
    """A decision that rests on speakers of some chats is no decision about the others: a bot that somebody wrote with
    does not answer his friends. In tickets it is: who speaks there without staff is a customer."""
    here = frozenset(seen.staffed) if roles.by_flag else _threads_of(speakers, seen)
    chats = talk.owner in seen.turns or not (talk.threads_are_whole or roles.by_name)
    if talk.crowd or not chats or not here or len(here) == len(seen.inside):
        return roles
    known = without | here
    others = _look(talk, data.pause_hours * 3600, known)
    if len(others.turns) < 2:
        return roles
    elsewhere = _decide(talk, data, others, known)
    roles.threads, roles.elsewhere = here, elsewhere
    said = [note for note in elsewhere.notes if note not in roles.notes]
    roles.notes += [f"in the other chats, {note}" for note in said]
    return roles


def _threads_of(speakers: Sequence[str], seen: _Seen) -> frozenset[str]:
    return frozenset(thread for thread, there in seen.inside.items() if any(one in there for one in speakers))


def _by_names(seen: _Seen, *, wholly: bool) -> Roles | None:
    """Sides told by names: agents, or else everybody who is no customer."""
    said = {speaker: what_a_name_says(seen.names[speaker], wholly=wholly) for speaker in _often(seen)}
    answering = [speaker for speaker, side in said.items() if side == "answering"]
    notices = [speaker for speaker, side in said.items() if side == "notice"]
    asking = [speaker for speaker, side in said.items() if side == "asking"]
    turns = sum(seen.turns[speaker] for speaker in answering)
    total = seen.total
    if wholly:  # an account's chats: of each other one somebody else is part
        total = sum(sum(seen.inside[thread].values()) for thread in _threads_of(answering, seen))
    if answering and len(answering) < len(said) and turns >= NAMED * total:
        return Roles(by_name=True, wholly=wholly, notices=True, notes=[_note(answering, seen, "by the name")])
    if not asking or len(asking) == len(said):
        return None
    others = [speaker for speaker, side in said.items() if not side]
    if others:
        note = _note(others, seen, f"answers {_listed(asking, seen)}")
        return Roles(by_name=True, wholly=wholly, notices=True, otherwise="assistant", notes=[note])
    return Roles(by_name=True, wholly=wholly, notes=[_note(notices, seen, f"answers {_listed(asking, seen)}")])


def _guess(talk: Talk, seen: _Seen) -> Roles:
    if talk.owner in seen.turns and len(seen.turns) > 1:
        why = talk.owner_why or "the account's owner"
        return Roles(frozenset([talk.owner]), notes=[_note([talk.owner], seen, why, change=True)])
    if len(seen.turns) == 2:
        one, other = seen.order
        voice = one if seen.replied[one] > seen.replied[other] else other  # a tie: the one who spoke second
        total = sum(seen.replied.values())
        why = f"answers {seen.replied[voice]} of {total} questions" if total else "speaks second"
        return Roles(frozenset([voice]), notes=[_note([voice], seen, why, change=True)])
    answered = {speaker: seen.conversations[speaker] - seen.opened[speaker] for speaker in seen.turns}
    staff = [one for one in _often(seen) if answered[one] >= 3 and seen.opened[one] < answered[one] / 2]
    if staff:
        covered = max(answered[one] for one in staff)
        if sum(answered[one] for one in staff) >= 0.6 * seen.number:
            why = f"{'answer' if len(staff) > 1 else 'answers'} in {covered} of {seen.number} conversations"
            why = f"up to {covered} of {seen.number} conversations answered by one of them" if len(staff) > 1 else why
            return Roles(frozenset(staff), notes=[_note(staff, seen, why, change=True)])
    most = max(seen.replied, key=lambda one: seen.replied[one], default="")
    if most and seen.conversations[most] >= 0.5 * seen.number:
        why = f"answers most: {seen.replied[most]} of {sum(seen.replied.values())} questions"
        return Roles(frozenset([most]), notes=[_note([most], seen, why, change=True)])
    note = "assistant: the second speaker of each conversation (nobody answers in most; to change: --assistant NAME)"
    return Roles(otherwise="second", notes=[note] if len(seen.turns) > 1 else [])


def _groups(talk: Talk, seen: _Seen, roles: Roles) -> Literal["thread", "party", ""]:
    """What keeps records together in one split: the customers where they have names of their own, else the threads."""
    parties = [turn for turn in seen.met if not turn.role and not what_a_name_says(turn.name or turn.speaker)]
    staff = roles.assistants | (roles.elsewhere.assistants if roles.elsewhere is not None else frozenset())
    parties = [turn for turn in parties if not (roles.by_flag and turn.answer) and turn.speaker not in staff]
    if len(parties) >= max(GROUPS, 0.2 * seen.threads):
        return "party"
    return "thread" if seen.threads >= GROUPS and not talk.crowd else ""


# ------------------------------------------------------------------------------------------------------------ words


def _note(speakers: Sequence[str], seen: _Seen, why: str, *, change: bool = True) -> str:
    return f"assistant: {_listed(speakers, seen)} ({why}{'; to change: --assistant NAME' if change else ''})"


def _listed(speakers: Sequence[str], seen: _Seen, most: int = 6) -> str:
    names = list(dict.fromkeys(f'"{seen.names[speaker]}"' for speaker in speakers))
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _often(seen: _Seen) -> list[str]:
    return [speaker for speaker, _ in seen.turns.most_common()]


def _plain(name: str) -> str:
    return name.strip().lstrip("@").casefold()
