"""A flag for abuse: insults, slurs, threats and obscene language.

A word list, not a model: each verdict can be read and argued with, it costs no dependency, and it works the same on
every machine. It finds what is said in so many words and misses what is only meant; it does not know who may call
themselves what. So it flags, and drops only when asked to. English is covered best, other large languages in part.
"""

# ruff: noqa: E501 - a pattern is one line

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ownchat.clean.batches import Cleaned, drop_rows, flat_messages, is_spoken, rows_of, with_tag
from ownchat.data.ledger import Entry

TAG = "toxic"
LONG_TEXT = 4_000  # characters: a longer text, in which abuse may be quoted, needs one more for each such stretch

_GAP = r"[\s,.'’-]+"
# Slurs and sexual abuse: one is enough. Words with an innocent sense ("dick", "spade", "coon cat", "fag" for a
# cigarette, "paki" as a name) are not here or only with what makes the sense clear.
_ALONE = (
    r"n[i1]gg(?:er|a|az|ah|uh)s?|k[i1]kes?|sp[i1]cs|wetbacks?|gooks?|ch[i1]nks|rag ?heads?|towel ?heads?|camel jockeys?|"
    r"f[a@]gg?[o0]ts?|f[a@]ggy|tr[a@]nn(?:y|ies)|dykes|retards?|(?:fuc?k(?:ing)?|mother) ?retarded|mongoloids?|"
    r"c[u*]nts?|tw[a@]ts?|wh[o0*]res?|sluts?|slutty|skanks?|motherfuc?k(?:er|ers|ing|a)|mofos?|cock ?suck(?:er|ers|ing)|"
    r"dick ?heads?|dick ?suck(?:er|ing)|shit ?heads?|fuck ?(?:face|head|tard|wit)s?|ass ?(?:wipe|hat|clown)s?|dumb ?ass(?:es)?|"
    r"dumb ?fucks?|bastards?|wankers?|bellends?|cum ?(?:slut|dump|shot)s?|rape (?:her|him|you|them)|gang ?bang(?:ed|s)?|"
    r"subhumans|untermenschen?|(?:white|aryan) power|sieg heil|heil hitler|gas the \w+|"
    r"arschl[oö]ch(?:er)?|hurensohn|hurensöhne|wichser|fotzen?|schlampen?|missgeburt|mistst[uü]ck|kanaken?|schwuchteln?|"
    r"conn(?:ard|asse)s?|encul[eé]s?|putain de|salop(?:e|ard)s?|fils de pute|nique ta m[eè]re|pédés?|bougnoules?|"
    r"hij[oa]s? de puta|hdp|putas?|maric[oó]n(?:es)?|gilipollas|pendej[oa]s?|cabr[oó]n(?:es)?|co[ñn]o de tu madre|chinga(?:da|r|te)?|"
    r"filh[oa]s? da puta|caralho|viados?|arrombad[oa]s?|vagabundas?|"
    r"stronz[oaie]|vaffanculo|figli[oa] di puttana|puttan[ae]|froci[o]?|coglion[ei]|"
    r"сук[аи]|бля(?:дь|ть|ди)?|пизд\w*|х[уy]й\w*|[её]б(?:ать|аный|анный|ан\w*)|мудак\w*|пид[оа]р\w*|"
    r"kurw[ayąęo]\w*|chuj\w*|jeba[ćnł]\w*|pierdol\w*|orospu|siktir|amına|kankerhoer|kutwijf|hoerenzoon|"
    r"傻逼|操你妈|草泥马|妈的|王八蛋|死ね|クソ野郎|씨발|개새끼|병신|كس امك|شرموطة|मादरचोद|भोसड़ी|बहनचोद|chutiya|madarchod|bhenchod"
)
_ABUSE = (
    r"idiots?|morons?|imbeciles?|stupid|dumb|losers?|assholes?|a[s$]{2}h[o0]les?|bitch(?:es)?|pigs?|scum(?:bags?)?|trash|"
    r"pathetic|worthless|useless|disgusting|ugly|fat|cretins?|jerks?|clowns?|liars?|thie(?:f|ves)|piece of (?:shit|crap|trash|garbage)|"
    r"shit|crap|dick|prick|douche(?:bag)?s?|coward|parasites?|vermin|animals?|freaks?|weirdos?|creeps?|perverts?"
)
_HARD = (
    r"(?:fuc?k(?:s|ed|ing?|in['’]?|er|ers)?|shit(?:s|ty|ting)?|bull ?shit|assholes?|a[s$]{2}h[o0]les?|bitch(?:es|y|ing)?|"
    r"pussy|pussies|dickhead|prick|douche(?:bag)?s?|jackass(?:es)?|scumbags?|bollocks|goddamn(?:ed|it)?|piss(?:ed)? off|wtf|stfu|gtfo|fck|f\*+k|f\*\*\*(?:ing)?)"
)
_DIRECTED = (
    rf"(?:(?:you|u|ya|your)(?:['’]?re| are|r)?|he['’]s|she['’]s|they['’]re|he is|she is|they are|these|those|such an?|what an?){_GAP}"
    rf"(?:all |such |just |really |so |fucking |nothing but )*(?:an? )?(?:bunch of |complete |total |absolute |fucking |bloody |stupid |little |lying |dirty |real |piece of )*"
)
_PATTERNS = (
    rf"\b(?:{_ALONE})\b",
    # insults said to somebody; for mild words only "you ...", since "these are useless" is about things
    r"\b(?:(?:you|u|ya)(?:['’]?re| are)?|ur) (?:all |such |just |really |so |fucking |nothing but )*(?:an? )?"
    rf"(?:bunch of |complete |total |absolute |fucking |bloody |stupid |little |lying |dirty |real )*(?:{_ABUSE})\b",
    rf"\b{_DIRECTED}(?:assholes?|bitch(?:es)?|morons?|imbeciles?|scum(?:bags?)?|pieces? of shit|vermin|parasites?|subhuman)\b",
    r"\b(?:screw you|damn you|screw (?:him|her|them))\b|\b(?:fuc?k|f\*+k|fck) (?:you|u|off|yourself|yourselves|your \w+|him|her|them|those|these|the (?:jews|muslims|blacks|whites|gays))\b",
    r"\b(?:eat shit|suck my|kiss my ass|lick my|blow me|shut (?:the fuck )?up,? (?:you|bitch|idiot)|shut the (?:fuck|hell) up|go to hell|burn in hell|drop dead|go die|kys|kill (?:yourself|urself|ur ?self)|hang yourself|neck yourself)\b",
    # threats to persons
    r"\b(?:i|we)(?:['’]ll| will| ?['’]?m (?:going to|gonna)| am going to| wanna| want to| should| hope (?:someone|somebody|they)) (?:fucking )?(?:kill|murder|strangle|stab|shoot|rape|behead|slaughter|beat up|hurt|burn) (?:you|u|your (?:family|kids|wife|mother|children)|him|her|them all|all of (?:you|them)|those|every(?:one| one of you))\b",
    r"\b(?:you|they)(?:['’]ll| will| should| deserve to)? (?:all )?(?:die|be (?:killed|shot|hanged|raped|gassed|exterminated))\b[^.?!]{0,20}(?:$|[.!])",
    r"\b(?:kill|exterminate|deport|gas|hang|shoot) (?:all )?(?:the )?(?:jews|muslims|blacks|whites|mexicans|immigrants|gays|refugees|women|christians)\b",
    r"\b(?:all|most|these|those|fucking) (?:the )?(?:jews|muslims|blacks|mexicans|immigrants|gays|refugees|women|arabs|gypsies|asians|indians)(?: people)? (?:are|should) (?:all )?(?:be )?(?:killed|shot|criminals|terrorists|animals|rapists|vermin|parasites|scum|thieves|stupid|inferior|filthy|dirty|disgusting|trash|die|deported)\b",
    r"\b(?:du|ihr|sie) (?:bist|seid|sind) (?:doch )?(?:echt |alle |so |ein(?:e)? |total |völlig )*(?:idiot(?:en)?|arsch|dumm|blöd|hässlich|dreck|abschaum)\b|\bfick dich\b|\bverpiss dich\b|\bhalt die fresse\b|\bich (?:bring|bringe) dich um\b",
    r"\b(?:va te faire (?:foutre|enculer)|ta gueule|ferme ta gueule|je vais te (?:tuer|buter)|vete a la (?:mierda|chingada)|te voy a matar|eres (?:un |una )?(?:idiota|imbécil|estúpid[oa])|vai (?:se foder|tomar no cu)|ti ammazzo|sei un (?:idiota|cretino))\b",
)
_TOXIC = rf"(?i){'|'.join(_PATTERNS)}"
_OBSCENE = rf"(?i)\b{_HARD}\b"


def is_toxic(texts: pa.Array) -> np.ndarray:
    """Which texts hold abuse; obscene words that are aimed at nobody count from the second on.

    >>> is_toxic(pa.array(["you are an idiot", "how do I kill a process?", "shit, it rains", None])).tolist()
    [True, False, False, False]
    """
    stretches = pc.fill_null(pc.utf8_length(texts), 0).to_numpy(zero_copy_only=False) // LONG_TEXT
    abusive = pc.fill_null(pc.count_substring_regex(texts, _TOXIC), 0).to_numpy(zero_copy_only=False)
    obscene = pc.fill_null(pc.count_substring_regex(texts, _OBSCENE), 0).to_numpy(zero_copy_only=False)
    return (abusive > stretches) | (obscene > stretches + 1)


def flag_toxic(batch: pa.RecordBatch, drop: bool = False) -> Cleaned:
    """Tag records in which a message, or the document, is abusive; ``drop``: take them out instead.

    The ledger says who spoke: a customer who swears is a fact of support, an assistant who does is not to be learned.
    """
    messages, rows = flat_messages(batch), rows_of(batch)
    by: dict[int, Counter[str]] = {}
    spoken = np.flatnonzero(is_spoken(messages))
    texts = messages.field("content").take(pa.array(spoken))
    for index in spoken[is_toxic(texts)].tolist():
        role = messages.field("role")[index].as_py()
        by.setdefault(int(rows[index]), Counter())[role] += 1
    for row in np.flatnonzero(is_toxic(batch.column("text"))).tolist():
        by.setdefault(int(row), Counter())["document"] += 1
    if not by:
        return batch, []
    details = {
        row: ", ".join(f"{count} {role}" for role, count in sorted(counts.items())) for row, counts in by.items()
    }
    if drop:
        return drop_rows(batch, dict.fromkeys(by, "toxic"), details)
    ids = batch.column("id")
    entries = [Entry("row", ids[row].as_py(), "changed", "toxic", detail=details[row]) for row in sorted(by)]
    return with_tag(batch, sorted(by), TAG), entries


def count_toxic(batches: Iterable[pa.RecordBatch]) -> dict[str, tuple[int, int]]:
    """For each source file how many records it has and how many are flagged, from tags that :func:`flag_toxic` set."""
    counts: dict[str, tuple[int, int]] = {}
    for batch in batches:
        files = batch.column("source").field("file").to_pylist()
        for file, tags in zip(files, batch.column("tags").to_pylist(), strict=True):
            records, flagged = counts.get(file, (0, 0))
            counts[file] = (records + 1, flagged + (TAG in (tags or ())))
    return counts
