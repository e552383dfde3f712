"""What machines wrote into conversations: system lines, automatic replies, greetings with nothing after, cut turns.

RE2 looks for a few words in whole columns; the exact, slower test sees only what it singled out. A pattern must match
a whole line or start a sentence: a customer who writes *about* an automatic reply is not one.
"""

# ruff: noqa: E501 - a pattern is one line

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ownchat.clean.batches import (
    Cleaned,
    as_mask,
    count_messages,
    drop_messages,
    drop_rows,
    flat_messages,
    has_kind,
    is_spoken,
    matches,
    replace_messages,
    rows_of,
    sources,
    with_messages,
    with_texts,
)
from ownchat.data.ledger import Entry

MOST_LINE = 300  # characters of a system line: WhatsApp's notice of encryption, the longest known, has 190
MOST_NOTICE = 700  # characters of an automatic reply that is nothing else; in a longer text only its sentence goes
MOST_GREETING = 120

# ------------------------------------------------------------------------------------------------------ system lines

_SYSTEM_HINT = (
    r"(?i)joined|left|quit|parted|entered|added|removed|created|changed|encrypted|omitted|deleted|missed|assigned|"
    r"transferred|escalated|reopened|closed|ended|started|resolved|pinned|renamed|now known as|has set|topic|status|"
    r"beigetreten|verlassen|hinzugefügt|verschlüsselt|weggelassen|gelöscht|geändert|erstellt|verpasst|"
    r"rejoint|quitté|ajouté|chiffré|omis|supprimé|modifié|créé|unió|salió|añadió|cifrad|eliminad|cambió|creó|perdida|"
    r"entrou|saiu|adicionou|criptografad|apagad|mudou|criou|unito|uscito|aggiunto|crittografat|eliminat|modificato"
)
# "Anna Berg", "@anna", "+49 170 1234567", "agent_7", "The visitor": at most five words, and nobody who is only pointed
# at ("she joined the call" is said by people).
_NAME = (
    r"(?!(?:i|we|he|she|they|it|who|that|this|someone|somebody|nobody|everyone|everybody|anyone|my|our|his|her|their|"
    r"when|where|what|why|how|if|then|and|but|so|because|just|already|never|not|have|has|had|was|please|yes|no|ok|"
    r"okay|a|an|ich|wir|er|sie|es|je|nous|il|elle|ils|yo|nosotros|él|ella|eu|nós|ele|ela|io|noi|lui|lei)\b)"
    r"[^\s,.!?][^\s,!?]*(?:\s+[^\s,!?]+){0,4}?"
)
_PLACE = r"(?:channel|chat|conversation|group|room|meeting|call|session|server|workspace|thread|team|queue|community)"
_TICKET = r"(?:ticket|case|issue|request|conversation|chat|incident)(?:\s+\(?#?[\w-]*\d[\w-]*\)?)?"
_STATE = r"(?:new|open|pending|on[- ]hold|waiting[\w ]*|in progress|solved|resolved|closed|reopened|escalated|spam)"
_SYSTEM_LINES = (
    # presence
    rf"(?:the |your )?{_NAME} (?:has |have )?(?:joined|rejoined|left|entered|exited|quit)(?: the| this| your)?(?: \S+)? {_PLACE}(?: (?:via|using|by|through|with|from) .{{0,60}})?",
    rf"(?:the |your )?{_NAME} (?:was|were|has been|have been) (?:added|removed|invited|transferred)(?: (?:to|from) (?:the|this) {_PLACE}(?: by .{{0,40}})?| by .{{1,40}})",
    rf"{_NAME} (?:added|removed|invited) \S.{{0,60}} (?:to|from) (?:the|this) {_PLACE}",
    r"(?:\*\*\*|-!-|-->|<--|\*|→|←)\s*\S+ (?:\[?\(?\S+@\S+\)?\]? )?(?:has )?(?:joined|quit|left|parted|is now known as|sets? mode)\b.{0,200}",
    rf"{_NAME} is now known as \S+",
    # groups and messengers
    rf"{_NAME} (?:created|changed|renamed|deleted|set|updated) (?:the |this |your )?(?:group|channel|chat|subject|topic|group name|group description|group's? icon|group settings|security code)\b.{{0,120}}",
    r"(?:your )?(?:messages|chats?|calls|messages and calls)[\w ,]{0,40} (?:is|are) (?:now )?(?:secured with |protected with )?end-to-end encrypt.{0,160}",
    r"your security code with .{1,60} changed.{0,60}",
    r"<?(?:media|image|video|audio|sticker|gif|document|contact card|photo|file|attachment)s? (?:omitted|removed|not included)>?",
    r"(?:this message was deleted|you deleted this message|this message has been deleted|message deleted|\[deleted\])(?: by .{0,40})?",
    r"(?:missed|declined) (?:(?:voice|video|group) )*call(?: (?:at|from) .{0,40})?",
    rf"{_NAME} (?:pinned|unpinned) (?:a|this|the) message.{{0,60}}",
    # tickets and live chats
    rf"(?:this |the |your )?{_TICKET} (?:has been|was|is now|is) (?:automatically )?(?:assigned|reassigned|transferred|escalated|merged|opened|reopened|closed|resolved|solved|created|started|ended|archived)(?: (?:to|by|from|with|into|due to|because of|as|at|on) .{{0,80}})?",
    r"(?:ticket |case )?(?:status|priority|assignee|owner)(?: of .{1,40})? (?:was |has been )?(?:changed|updated|set)(?: by .{1,40}?)?(?: from .{1,40}?)? to .{1,60}",
    rf"{_NAME} (?:changed|updated|set) the (?:status|priority|assignee|owner|category)\b.{{0,100}}",
    rf"status:? {_STATE} ?(?:->|→|=>) ?{_STATE}",
    rf"{_NAME} (?:has )?(?:assigned|reassigned|transferred|escalated) (?:this|the) (?:ticket|case|issue|conversation|chat) to .{{1,60}}",
    r"(?:the )?(?:chat|conversation|session) (?:started|ended|closed|transferred)(?: (?:at|on|by|to|with|:).{0,60})?",
    rf"(?:the |your )(?:user|visitor|agent|customer|operator|guest|client|participant|representative) has (?:joined|left|ended|closed|disconnected)(?: (?:the|this) {_PLACE})?",
    # other languages of the large messengers
    rf"{_NAME} (?:ist (?:dem|der) (?:kanal|gruppe|chat|unterhaltung) beigetreten|hat (?:die gruppe|den kanal|den chat|die unterhaltung) (?:verlassen|erstellt)|hat .{{1,60}} hinzugefügt|hat den betreff .{{0,80}}geändert.{{0,60}})",
    r"(?:nachrichten und anrufe sind|deine nachrichten sind) ende-zu-ende-verschlüsselt.{0,160}",
    r"<?(?:medien|bild|video|audio|sticker|dokument) weggelassen>?|diese nachricht wurde gelöscht|verpasster (?:sprach|video)anruf",
    rf"{_NAME} (?:a rejoint|a quitté|a créé) (?:le groupe|la conversation|le canal|la discussion).{{0,60}}|{_NAME} a ajouté .{{1,60}}",
    r"les messages et les appels sont chiffrés de bout en bout.{0,160}|<?(?:médias|image|vidéo|audio) omise?s?>?|ce message a été supprimé",
    rf"{_NAME} (?:se unió|salió|creó|abandonó)(?: al?| del| el| de la)? (?:grupo|chat|canal|conversación).{{0,60}}|{_NAME} añadió a .{{1,60}}",
    r"los mensajes y las llamadas están cifrados de extremo a extremo.{0,160}|<?(?:multimedia|imagen|video|vídeo|audio) omitid[oa]>?|se eliminó este mensaje|(?:video)?llamada perdida",
    rf"{_NAME} (?:entrou n|saiu d|criou )[oa]? ?(?:grupo|conversa|canal|chat).{{0,60}}|{_NAME} adicionou .{{1,60}} ao grupo",
    r"as mensagens e (?:as )?(?:ligações|chamadas) são protegidas com.{0,160}|<?(?:mídia|imagem|vídeo|áudio) ocult[oa]>?|(?:essa|esta) mensagem foi apagada",
    rf"{_NAME} (?:si è unito|è entrato|è uscito|ha (?:lasciato|abbandonato|creato)) ?(?:al|dal|nel|il)? ?(?:gruppo|canale|chat).{{0,60}}|{_NAME} ha aggiunto .{{1,60}}",
    r"i messaggi e le chiamate sono crittografati end-to-end.{0,160}|<?(?:media|immagine|video|audio) omess[oi]>?|questo messaggio è stato eliminato",
)  # fmt: skip
_SYSTEM_LINE = re.compile(rf"[\s\u200e\u200f\[(*_~-]*(?:{'|'.join(_SYSTEM_LINES)})[\s.!\])*_~-]*", re.IGNORECASE)


def is_system_line(line: str) -> bool:
    """Whether a messenger, an IRC server or a ticket system wrote this line.

    >>> is_system_line("Anna Berg joined the channel"), is_system_line("I joined the channel to ask about my bill")
    (True, False)
    """
    return len(line) <= MOST_LINE and _SYSTEM_LINE.fullmatch(line) is not None


def drop_system_lines(batch: pa.RecordBatch) -> Cleaned:
    """Take lines of messengers and ticket systems out of what was said; a message of nothing else is dropped."""
    return _cut(batch, _SYSTEM_HINT, _without_system_lines, "system line")


def _without_system_lines(text: str) -> str:
    return "\n".join(line for line in text.split("\n") if not is_system_line(line))


# ------------------------------------------------------------------------------------------------- automatic replies

_BOT_HINT = (
    r"(?i)automat|out of (?:the )?office|auto[- ]?reply|auto[- ]?response|do not reply|don't reply|unmonitored|"
    r"not monitored|abwesenheit|nicht auf diese|nicht im büro|ne pas répondre|absence|no responda|não responda|"
    r"non rispondere|away from (?:my|the) (?:desk|office|email)"
)
_THING = r"(?:e-?mail|message|reply|response|notification|notice|confirmation|answer|text|acknowledge?ment)"
_AUTOMATIC = re.compile(
    r"(?:^|[.!?*>\n\[(|-])\s*(?:\W{0,3}(?:note|notice|hinweis|nota)\s*:\s*)?(?:"
    rf"(?:please note(?: that)?,? )?th(?:is|e) (?:is|was)(?: an?)?(?: \w+)? auto(?:mated|matic|-?generated|matically[ -]generated)(?: \w+)? {_THING}|"
    rf"this {_THING} (?:is|was|has been) (?:sent|generated|created|produced)?\s?auto(?:matically|-generated)|"
    rf"(?:an? )?(?:automatic|automated|auto)[- ]?(?:reply|response|message|antwort)\s*(?:[:\])-]|$|\n)|"
    r"out of (?:the )?office(?: (?:auto[- ]?reply|notice|message|reply))?\s*(?:[:\])-]|$|\n)|"
    r"automatische antwort\b|abwesenheitsnotiz\b|(?:diese|dies ist eine)r? (?:e-?mail|nachricht) (?:wurde )?automatisch (?:erstellt|generiert|erzeugt|versendet|gesendet)|"
    r"dies ist eine automati(?:sche|sch \w+) (?:e-?mail|nachricht|antwort)|"
    r"(?:ceci est un (?:message|e-?mail) (?:automatique|généré automatiquement)|réponse automatique\b|ce message (?:est|a été) (?:envoyé|généré) automatiquement)|"
    r"(?:este es un (?:mensaje|correo)(?: electrónico)? (?:automático|generado automáticamente)|respuesta automática\b)|"
    r"(?:esta é uma (?:mensagem|resposta) automática|este é um e-?mail automático|resposta automática\b)|"
    r"(?:questo è un (?:messaggio|e-?mail) (?:automatico|generato automaticamente)|risposta automatica\b)"
    r")",
    re.IGNORECASE,
)
_AWAY = re.compile(
    r"\bi(?: am|'m|’m| will be)(?: currently)? (?:out of (?:the )?office|away from (?:my|the) (?:desk|office|e-?mail)|on (?:annual |parental |sick )?leave|on vacation)|"
    r"ich bin (?:derzeit |zur ?zeit |momentan )?(?:nicht im (?:büro|haus)|abwesend)|je suis (?:actuellement )?(?:absente?|en congés?)|"
    r"(?:estoy|estaré) fuera de la oficina|(?:estou|estarei) fora do escritório|sono fuori (?:ufficio|sede)",
    re.IGNORECASE,
)
_AWAY_TOO = re.compile(
    r"limited access|no access to (?:my )?e-?mail|(?:respond|reply|get back|answer)\b[^.\n]{0,60}\b(?:return|when i am back|as soon as|possible)|"
    r"(?:urgent|immediate)[^.\n]{0,60}(?:contact|call|e-?mail)|dringend|weitergeleitet|en cas d['’]urgence|en caso de urgencia|urgenze|urgências",
    re.IGNORECASE,
)
_NO_REPLY = re.compile(
    r"[^.!?\n]*\b(?:(?:please )?do(?: not|n['’]t) (?:reply|respond)(?: directly)? to this (?:e-?mail|message|address)|"
    r"this (?:mailbox|inbox|address|e-?mail address) is (?:not monitored|unmonitored|not checked)|replies to this (?:e-?mail|message|address) (?:are|will) not|"
    r"(?:bitte )?antworten sie (?:bitte )?nicht auf diese|(?:merci de )?ne pas répondre à ce(?:t e-?mail| message)|"
    r"(?:por favor,? )?no responda a este|(?:por favor,? )?não responda a est[ea]|(?:si prega di )?non rispondere a quest)[^.!?\n]*[.!?]*",
    re.IGNORECASE,
)


def is_automatic(text: str) -> bool:
    """Whether a message is an automatic reply or notice and nothing else.

    >>> is_automatic("This is an automated message. We have got your request."), is_automatic("I got an auto-reply.")
    (True, False)
    """
    if len(text) > MOST_NOTICE:
        return False
    return bool(_AUTOMATIC.search(text) or (_AWAY.search(text) and _AWAY_TOO.search(text)))


def drop_bot_noise(batch: pa.RecordBatch) -> Cleaned:
    """Take out automatic replies; in longer messages the sentence "do not reply to this e-mail" alone is cut."""
    return _cut(batch, _BOT_HINT, lambda text: "" if is_automatic(text) else _NO_REPLY.sub("", text), "bot noise")


def _cut(batch: pa.RecordBatch, hint: str, shorten: Callable[[str], str], rule: str) -> Cleaned:
    """Run ``shorten`` on the spoken messages that hold ``hint``; what becomes blank is dropped."""
    messages = flat_messages(batch)
    contents = messages.field("content")
    suspects = np.flatnonzero(matches(contents, hint))
    suspects = suspects[is_spoken(messages)[suspects]] if len(suspects) else suspects
    if not len(suspects):
        return batch, []
    has_calls = ~as_mask(pc.equal(pc.fill_null(messages.field("tool_calls"), ""), ""))
    rows, gone, changed = rows_of(batch), np.zeros(len(messages), bool), dict[int, str]()
    for index, text in zip(suspects.tolist(), contents.take(pa.array(suspects)).to_pylist(), strict=True):
        shorter = shorten(text)
        if not shorter.strip() and not has_calls[index]:
            gone[index] = True
        elif shorter != text:
            changed[index] = shorter.strip()
    entries = []
    if changed:
        batch = with_messages(batch, replace_messages(messages, content=with_texts(contents, changed)))
        touched, counts = np.unique(rows[list(changed)], return_counts=True)
        for row, count in zip(touched.tolist(), counts.tolist(), strict=True):
            entries.append(Entry("row", batch.column("id")[row].as_py(), "changed", rule, detail=f"{count} messages"))
    batch, dropped = drop_messages(batch, gone, rule)
    return batch, entries + dropped


# ---------------------------------------------------------------------------------------------------------- greetings

_GREETING = (
    r"hello+|hi+|hey+|hiya|howdy|yo|greetings|good (?:morning|afternoon|evening|night|day)|morning|welcome|"
    r"thank ?s?|thank(?:s| you)?(?: you)?|thx|ty|cheers|thanks a lot|so much|very much|a lot|many|"
    r"bye+|goodbye|good bye|bye bye|see (?:you|ya)(?: later| soon)?|cya|take care|have a (?:nice|good|great|lovely) "
    r"(?:day|evening|weekend|night|one)|you(?:['’]re| are) welcome|no problem|my pleasure|you too|same to you|"
    r"how are you(?: doing)?(?: today)?|how do you do|what['’]s up|sup|there|all|everyone|team|sir|madam|again|and|ok|okay|"
    r"hallo|guten (?:tag|morgen|abend)|moin|servus|grüß gott|danke(?: schön| sehr)?|vielen dank|bitte(?: schön)?|gerne|"
    r"tschüss?|auf wiedersehen|bis bald|schönen tag(?: noch)?|gute nacht|"
    r"bonjour|bonsoir|salut|coucou|merci(?: beaucoup)?|de rien|au revoir|bonne (?:journée|soirée|nuit)|à bientôt|"
    r"hola|buen[oa]s (?:días|dias|tardes|noches)|buenas|gracias|muchas gracias|de nada|adiós|adios|hasta luego|chao|"
    r"olá|ola|oi|bom dia|boa (?:tarde|noite)|obrigad[oa]|muito obrigad[oa]|de nada|tchau|até logo|até mais|"
    r"ciao|salve|buongiorno|buonasera|buonanotte|grazie(?: mille)?|prego|arrivederci|a presto|"
    r"hoi|goedemorgen|goedemiddag|goedenavond|dank je(?: wel)?|bedankt|doei|tot ziens|hej|tack|hejdå|hei|takk|tak|"
    r"привет|здравствуйте|здравствуй|добр(?:ый|ое|ой) (?:день|утро|вечер|ночи)|спасибо(?: большое)?|пожалуйста|пока|"
    r"до свидания|cześć|dzień dobry|dziękuję|dzięki|do widzenia|merhaba|selam|teşekkür(?:ler| ederim)?|sağ ?ol|"
    r"مرحبا|السلام عليكم|وعليكم السلام|شكرا|شكراً|مع السلامة|नमस्ते|धन्यवाद|你好|您好|谢谢|謝謝|多谢|不客气|再见|再見|早上好|晚上好|"
    r"こんにちは|こんばんは|おはよう(?:ございます)?|ありがとう(?:ございます)?|さようなら|どういたしまして|안녕하세요|안녕|감사합니다|고마워요?|안녕히 가세요"
)
_GREETINGS = rf"(?i)^[\s\p{{P}}\p{{S}}\p{{M}}\p{{Cf}}]*(?:(?:{_GREETING})[\s\p{{P}}\p{{S}}\p{{M}}\p{{Cf}}]*)+$"


def drop_greetings(batch: pa.RecordBatch) -> Cleaned:
    """Drop conversations in which nothing is said but hello, thanks and goodbye."""
    messages, rows = flat_messages(batch), rows_of(batch)
    spoken = is_spoken(messages)
    short = as_mask(pc.less_equal(pc.utf8_length(messages.field("content")), MOST_GREETING))
    other = np.bincount(rows[spoken & ~short], minlength=len(batch))  # a long message settles it without a match
    said = np.bincount(rows[spoken], minlength=len(batch))
    possible = has_kind(batch, "conversation") & (other == 0) & (said > 0)
    candidates = np.flatnonzero(spoken & possible[rows]) if possible.any() else np.empty(0, np.int64)
    if not len(candidates):
        return batch, []
    greets = matches(messages.field("content").take(pa.array(candidates)), _GREETINGS)
    greeting = np.bincount(rows[candidates[greets]], minlength=len(batch))
    only = possible & (greeting == said) & (_calls(messages, rows, len(batch)) == 0)
    return drop_rows(batch, dict.fromkeys(np.flatnonzero(only).tolist(), "greetings only"))


def _calls(messages: pa.StructArray, rows: np.ndarray, count: int) -> np.ndarray:
    has_calls = as_mask(pc.greater(pc.utf8_length(messages.field("tool_calls")), 0))
    return np.bincount(rows[has_calls | as_mask(pc.equal(messages.field("role"), "tool"))], minlength=count)


# ----------------------------------------------------------------------------------------------------------- cut turns

_CUT_MARK = (
    r"(?i)(?:\[\s*(?:\.\.\.|…)?\s*(?:message |text |output |response |content )?(?:truncated|clipped|cut off|gekürzt)[^\]]{0,40}\]|"
    r"\(\s*(?:\.\.\.|…)?\s*(?:message |text |output |response |content )?(?:truncated|clipped|cut off|gekürzt)[^)]{0,40}\)|"
    r"(?:\.\.\.|…)\s*(?:\[?(?:read|show|see|view|click to see) more\]?|\[?view entire message\]?))[\s.]*$"
)
_SENTENCE_END = r"[.!?。！？…|)\]}>»”\"'`*:;~]\s*$|\p{So}\s*$|https?://\S+$"


def drop_cut_turns(batch: pa.RecordBatch, limits: dict[str, int] | None = None) -> Cleaned:
    """Replies that an export cut off in the middle of a sentence are not learned.

    Cut off is what says so ("... [truncated]"), and what has exactly the length of the export's limit (``limits``:
    characters for each source, see :class:`~ownchat.clean.boilerplate.Learned`) and ends within a sentence. The last
    message of a conversation is dropped; one in the middle stays as context with weight 0. Questions stay.
    """
    messages = flat_messages(batch)
    contents = messages.field("content")
    cut = matches(contents, _CUT_MARK)
    rows = rows_of(batch)
    if limits and len(messages):
        known = np.array([limits.get(source, 0) for source in sources(batch)])[rows]
        length = pc.fill_null(pc.utf8_length(contents), 0).to_numpy(zero_copy_only=False)
        full = np.flatnonzero((known > 0) & (length == known))
        cut[full[~matches(contents.take(pa.array(full)), _SENTENCE_END)]] = True
    cut &= as_mask(pc.equal(messages.field("role"), "assistant"))
    if not cut.any():
        return batch, []
    is_last = np.arange(len(messages)) == (np.cumsum(count_messages(batch)) - 1)[rows]
    entries = []
    middle = cut & ~is_last
    if middle.any():
        weight = pc.if_else(pa.array(middle), pa.scalar(0, pa.int8()), messages.field("weight"))
        batch = with_messages(batch, replace_messages(messages, weight=weight))
        for row in np.unique(rows[middle]).tolist():
            entries.append(Entry("row", batch.column("id")[row].as_py(), "changed", "cut turn", detail="not trained"))
    batch, dropped = drop_messages(batch, cut & is_last, "cut turn")
    return batch, entries + dropped
