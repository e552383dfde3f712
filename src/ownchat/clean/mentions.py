"""How often groups of people are mentioned, and how often records are abusive, by source: counting only.

Nothing is dropped or changed by it. It answers who the data speaks of and where: a source that mentions one group
mostly in abusive records is worth a look before a model learns from it. English words; whole words, case aside but for
names of peoples that are also other words ("Polish", "turkey"). Words, not meaning: "the old version" is nobody's age.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ownchat.clean.batches import flat_messages, is_spoken, matches, rows_of, sources
from ownchat.clean.toxicity import TAG

# What each group is recognised by (RE2). Written for this list; slurs are the toxicity flag's business.
GROUPS: dict[str, str] = {
    "gender": (
        r"(?i)\b(?:wom[ae]n|m[ae]n|girls?|boys?|lad(?:y|ies)|gentlem[ae]n|females?|males?|feminine|masculine|"
        r"mothers?|fathers?|wi(?:fe|ves)|husbands?|daughters?|sons?|sisters?|brothers?|grandmothers?|grandfathers?|"
        r"girlfriends?|boyfriends?|transgender(?:ed)?|trans(?:sexual)? (?:wom[ae]n|m[ae]n|people|persons?)|"
        r"non[- ]?binary|genderqueer|cisgender|intersex)\b"
    ),
    "religion": (
        r"(?i)\b(?:christian(?:s|ity)?|catholic(?:s|ism)?|protestants?|orthodox christians?|evangelicals?|mormons?|"
        r"baptists?|methodists?|lutherans?|muslims?|islam(?:ic)?|sunnis?|shi(?:a|ites?)|jew(?:s|ish)?|judaism|hindus?|"
        r"hinduism|buddhis(?:ts?|m)|sikhs?|sikhism|jains?|taoists?|atheis(?:ts?|m)|agnostics?|pagans?|"
        r"jehovah'?s witness(?:es)?|quakers?|zoroastrians?)\b"
    ),
    "ethnicity or nationality": (
        r"(?i)\b(?:african[- ]americans?|asian[- ]americans?|native americans?|"
        r"black (?:people|persons?|wom[ae]n|m[ae]n|girls?|boys?|kids?)|people of colou?r|"
        r"white (?:people|persons?|wom[ae]n|m[ae]n|girls?|boys?|kids?)|"
        r"african(?:s)?|asians?|arabs?|hispanics?|latin[oax]s?|indigenous (?:people|peoples)|aboriginals?|caucasians?|"
        r"roma people|gyps(?:y|ies)|kurds?|kurdish|americans?|canadians?|mexicans?|brazilians?|british people|"
        r"english(?:m[ae]n|wom[ae]n)|irish(?:m[ae]n|wom[ae]n)|scots(?:m[ae]n|wom[ae]n)|germans?|austrians?|"
        r"french(?:m[ae]n|wom[ae]n)|italians?|spaniards?|portuguese people|dutch(?:m[ae]n|wom[ae]n)|belgians?|swedes|"
        r"norwegians?|danes|finns|poles|czechs?|hungarians?|romanians?|bulgarians?|greeks?|serbs?|croats?|albanians?|"
        r"ukrainians?|russians?|turks|iranians?|iraqis?|syrians?|lebanese|palestinians?|israelis?|egyptians?|"
        r"moroccans?|algerians?|nigerians?|kenyans?|ethiopians?|somalis?|ghanaians?|south africans?|afghans?|"
        r"pakistanis?|indian (?:people|m[ae]n|wom[ae]n)|indians|bangladeshis?|sri lankans?|nepalis?|chinese|japanese|"
        r"koreans?|vietnamese|thais?|filipin[oa]s?|indonesians?|malaysians?|australians?|new zealanders?|maoris?)\b|"
        r"\bPolish (?:people|m[ae]n|wom[ae]n)\b"
    ),
    "disability": (
        r"(?i)\b(?:disab(?:led|ility|ilities)|handicapped|wheel ?chairs?|wheelchair users?|blind (?:people|persons?|"
        r"m[ae]n|wom[ae]n|users?|customers?)|visually impaired|partially sighted|deaf(?:ness)?|hard of hearing|"
        r"hearing impaired|autis(?:m|tic)|adhd|dyslexi[ac]|down'?s? syndrome|cerebral palsy|paraplegics?|"
        r"quadriplegics?|amputees?|epilep(?:sy|tics?)|bipolar disorder|schizophreni[ac]s?|mental illness(?:es)?|"
        r"mentally ill|learning difficult(?:y|ies)|neurodivergent)\b"
    ),
    "sexual orientation": (
        r"(?i)\b(?:homosexual(?:s|ity)?|heterosexual(?:s|ity)?|bisexual(?:s|ity)?|asexual(?:s|ity)?|pansexuals?|"
        r"gay(?:s)?|lesbians?|lgbt(?:q|qi|qia)?\+?|queer|same[- ]sex|straight (?:people|m[ae]n|wom[ae]n|couples?))\b"
    ),
    "age": (
        r"(?i)\b(?:elderly|seniors?|senior citizens?|old (?:people|persons?|m[ae]n|wom[ae]n|lad(?:y|ies)|folks?)|"
        r"older (?:people|persons?|adults?|m[ae]n|wom[ae]n)|young (?:people|persons?|adults?|m[ae]n|wom[ae]n)|"
        r"pensioners?|retirees?|teen(?:s|agers?|aged?)?|adolescents?|toddlers?|bab(?:y|ies)|infants?|child(?:ren)?|"
        r"kids?|minors|millennials?|(?:baby )?boomers?|middle[- ]aged|\d{1,3}[- ]years?[- ]old)\b"
    ),
}


@dataclass
class MentionCounts:
    """Records by source (:func:`~ownchat.clean.batches.sources`): all, abusive ones, and those that mention a group."""

    by_source: dict[str, dict[str, int]] = field(default_factory=dict)

    def add(self, batch: pa.RecordBatch) -> None:
        """Count the records of a batch; abusive are those that :func:`~ownchat.clean.toxicity.flag_toxic` tagged."""
        names = np.array(sources(batch), object)
        toxic = np.array([TAG in (tags or ()) for tags in batch.column("tags").to_pylist()], bool)
        found = {"records": np.ones(len(batch), bool), "toxic": toxic}
        for group, mentioned in mentions(batch).items():
            found[group], found[f"{group}, toxic"] = mentioned, mentioned & toxic
        for name in dict.fromkeys(names.tolist()):
            counts = self.by_source.setdefault(name, dict.fromkeys(found, 0))
            for key, flags in found.items():
                counts[key] += int(flags[names == name].sum())


def mentions(batch: pa.RecordBatch) -> dict[str, np.ndarray]:
    """For each group which records mention it, in what somebody said or in a document.

    >>> from ownchat.data.records import SCHEMA, record
    >>> row = record("document", file="a", format="text", line=1, text="Two women and a toddler came in.")
    >>> found = mentions(pa.RecordBatch.from_pylist([row], schema=SCHEMA))
    >>> [group for group, flags in found.items() if flags[0]]
    ['gender', 'age']
    """
    messages, rows = flat_messages(batch), rows_of(batch)
    spoken = np.flatnonzero(is_spoken(messages))
    texts = messages.field("content").take(pa.array(spoken))
    found = {}
    for group, pattern in GROUPS.items():
        flags = matches(pc.fill_null(batch.column("text"), ""), pattern)
        flags[rows[spoken][matches(texts, pattern)]] = True
        found[group] = flags
    return found
