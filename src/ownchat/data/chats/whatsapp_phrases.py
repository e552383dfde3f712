"""What WhatsApp itself writes into the text of a message: files left out, deleted, edited, calls, polls.

It is told by its form wherever there is one (a mark before it, a file's name, brackets); the phrases are for exports
without such marks, in the languages of most users.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_LEFT_OUT = (  # Android, in angle brackets
    "media omitted", "video message omitted", "medien ausgeschlossen", "multimedia omitido", "archivo omitido",
    "médias omis", "média omis", "media omessi", "mídia oculta", "arquivo de mídia oculto", "ficheiro não revelado",
    "media weggelaten", "pominięto multimedia", "plik pominięty", "medya dahil edilmedi", "без медиафайлов",
    "файл пропущен", "media tidak disertakan", "मीडिया छोड़ा गया", "média vynechány", "medier har utelämnats",
    "media utelatt", "udeladt medie", "media jätettiin pois", "تم استبعاد الوسائط", "メディアは含まれていません",
    "省略多媒体文件", "已省略多媒體檔案", "미디어 파일을 제외한 내보내기",
)  # fmt: skip
_KINDS = (  # iOS: the kind of what was left out, and the word for leaving out
    r"(?:image|video|audio|gif|sticker|document|contact card|video note|media) omitted",
    r"(?:bild|video|audio|gif|sticker|dokument|kontaktkarte|videonachricht) (?:weggelassen|ausgelassen)",
    r"(?:imagen|video|audio|gif|sticker|documento|tarjeta de contacto|multimedia) omitid[oa]",
    r"(?:image|vidéo|audio|gif|sticker|document|fiche contact) (?:absente?|omise?|retirée?|manquante?)",
    r"(?:immagine|video|audio|gif|sticker|documento|scheda contatto) (?:omess[oa]|esclus[oa]|non inclus[oa])",
    r"(?:imagem|vídeo|áudio|gif|figurinha|sticker|documento|contato|contacto|cartão do contato|ficheiro de áudio)"
    r" (?:ocultad[oa]|omitid[oa]|não revelad[oa])",
    r"(?:afbeelding|video|audio|gif|sticker|document|contactkaart) weggelaten",
    r"(?:obraz|zdjęcie|wideo|film|audio|dźwięk|gif|naklejk[aę]|dokument|kart[aę] kontaktu) pominięt[oaey]|"
    r"pominięto (?:obraz|zdjęcie|wideo|film|audio|dźwięk|gif|naklejkę|dokument|kartę kontaktu)",
    r"(?:görüntü|video|ses|gif|çıkartma|belge|kişi kartı) dahil edilmedi",
    r"(?:изображение|видео|аудио|gif|стикер|документ|карточка контакта) (?:отсутствует|пропущено|не добавлен)",
    r"(?:gambar|video|audio|gif|stiker|dokumen|kartu kontak) tidak disertakan",
    r"(?:छवि|चित्र|वीडियो|ऑडियो|gif|स्टिकर|दस्तावेज़) (?:छोड़ा|छोड़ी) (?:गया|गई)",
)
_LAST_WORD = re.compile(  # of the phrases above
    r"(?:omitted|weggelassen|ausgelassen|omitid[oa]|absente?|omise?|retirée?|manquante?|omess[oa]|esclus[oa]|inclus[oa]"
    r"|ocultad[oa]|revelad[oa]|weggelaten|pominięt[oaey]|obraz|zdjęcie|wideo|film|audio|dźwięk|gif|naklejkę|dokument"
    r"|kontaktu|edilmedi|отсутствует|пропущено|добавлен|disertakan|गया|गई)\.?\Z",
    re.IGNORECASE,
)
_DELETED = frozenset((
    "this message was deleted", "you deleted this message", "message deleted", "diese nachricht wurde gelöscht",
    "du hast diese nachricht gelöscht", "se eliminó este mensaje", "eliminaste este mensaje", "mensaje eliminado",
    "ce message a été supprimé", "vous avez supprimé ce message", "questo messaggio è stato eliminato",
    "hai eliminato questo messaggio", "mensagem apagada", "esta mensagem foi apagada", "você apagou esta mensagem",
    "apagou esta mensagem", "dit bericht is verwijderd", "je hebt dit bericht verwijderd",
    "u hebt dit bericht verwijderd", "ta wiadomość została usunięta", "usunięto tę wiadomość",
    "usunąłeś(-aś) tę wiadomość", "bu mesaj silindi", "bu mesajı sildiniz", "данное сообщение удалено",
    "вы удалили данное сообщение", "сообщение удалено", "pesan ini telah dihapus", "anda menghapus pesan ini",
    "यह मैसेज हटाया गया", "यह संदेश हटाया गया", "आपने यह मैसेज हटाया", "آپ نے یہ پیغام حذف کر دیا", "تم حذف هذه الرسالة",
    "tato zpráva byla smazána", "tuto zprávu jste smazal/a",
))  # fmt: skip
_EDITED = frozenset((
    "this message was edited", "diese nachricht wurde bearbeitet", "se editó este mensaje", "ce message a été modifié",
    "questo messaggio è stato modificato", "messaggio modificato", "mensagem editada", "dit bericht is bewerkt",
    "ta wiadomość została edytowana", "edytowano tę wiadomość", "bu mesaj düzenlendi", "данное сообщение изменено",
    "сообщение изменено", "pesan ini diedit", "यह मैसेज एडिट किया गया",
))  # fmt: skip
_CALLS = frozenset((
    "missed voice call", "missed video call", "missed group voice call", "missed group video call",
    "verpasster sprachanruf", "verpasster videoanruf", "llamada perdida", "llamada de voz perdida",
    "videollamada perdida", "appel vocal manqué", "appel vidéo manqué", "chiamata persa", "chiamata vocale persa",
    "videochiamata persa", "chamada de voz perdida", "chamada de vídeo perdida", "gemiste spraakoproep",
    "gemiste video-oproep", "nieodebrane połączenie głosowe", "cevapsız sesli arama", "cevapsız görüntülü arama",
    "пропущенный аудиозвонок", "пропущенный видеозвонок", "panggilan suara tak terjawab",
    "panggilan video tak terjawab", "waiting for this message", "warten auf diese nachricht", "null",
))  # fmt: skip
_ATTACHED_WORDS = frozenset((
    "file attached", "datei angehängt", "archivo adjunto", "fichier joint", "file allegato", "arquivo anexado",
    "ficheiro anexado", "bestand bijgevoegd", "załączono plik", "dosya ekli", "файл добавлен", "file terlampir",
    "फ़ाइल संलग्न", "फ़ाइल अटैच की गई", "soubor byl přiložen", "الملف مرفق", "ファイル添付",
))  # fmt: skip

_FILE = r"[^\n<>]*\.[A-Za-z0-9]{2,5}"
_EDIT = re.compile(r"\s*\u200e?<([^<>\n:]{5,60})>\s*\Z")
_ATTACHED_IOS = re.compile(rf"\u200e*<[^<>:\n]{{2,30}}: ?\u200e?{_FILE}>")
_ATTACHED_ANDROID = re.compile(rf"(\u200e?)({_FILE}) \(([^()\n]{{3,40}})\)(?:\n|\Z)")
_PHONE_FILE = re.compile(r"(?:IMG|VID|AUD|PTT|STK|DOC|GIF|PHOTO)-[0-9]{8}-WA[0-9]+\.|[0-9]{8}-[A-Z]+-[0-9-]+\.")
_BRACKETED = re.compile(r"\u200e?<([^<>\"=/:\n]{3,60})>(?:\n|\Z)")
_KIND_LEFT_OUT = re.compile(rf"(?:^|(?<=\s)|(?<=\u200e))\u200e?(?:{'|'.join(_KINDS)})\.?\Z", re.IGNORECASE)
_IS_FILE = re.compile(rf"{_FILE}(?:\s*[•·].*)?\Z", re.DOTALL)
_POLL = re.compile(r"\u200e?[^\W\d_]{4,12}:\n.*\n\u200e?[^\W\d_]{5,10}: [^\n]*\(\u200e?\d+ [^\W\d_]+\)", re.DOTALL)
_PLACE = re.compile(r"\u200e?[^\W\d_][^:\n]{2,30}: https://(?:maps\.google\.com|goo\.gl/maps)/\S+\Z")
_MARKS = re.compile("[\u200e\u2068\u2069]")


class Said(NamedTuple):
    """What remains of a message: its text, or the rule by which it is none; and whether a file was left out."""

    text: str
    rule: str = ""
    media: bool = False


def what_was_said(body: str, *, marked: bool) -> Said:
    """Take out what WhatsApp wrote. ``marked``: an export of iOS, whose own words start with U+200E.

    >>> what_was_said("\\u200eimage omitted", marked=True).rule
    'media'
    >>> what_was_said("IMG-20240101-WA0001.jpg (file attached)\\nOur garden", marked=False)
    Said(text='Our garden', rule='', media=True)
    """
    text = _without_edit(body.strip())
    caption = _caption(text)
    if caption is not None:
        caption = _MARKS.sub("", caption).strip()
        if not caption or _IS_FILE.match(caption):
            return Said("", "media")
        return Said(caption, media=True)
    plain = _MARKS.sub("", text).strip()
    if not plain:
        return Said("", "empty")
    short = plain.casefold().rstrip(".").rstrip() if len(plain) < 100 else ""
    if short in _DELETED:
        return Said("", "deleted message")
    if _PLACE.match(text):
        return Said("", "media")
    if _POLL.match(text):
        return Said("", "poll")
    if short in _CALLS or (marked and text.startswith("\u200e")):
        return Said("", "system line")
    return Said(plain)


def _without_edit(text: str) -> str:
    if not text.endswith(">"):
        return text
    match = _EDIT.search(text)
    if match and (match[1].casefold().rstrip(".") in _EDITED or ("\u200e<" in match[0] and match.start() > 0)):
        return text[: match.start()]
    return text


def _caption(text: str) -> str | None:
    """The words beside a file; none if there is no file."""
    if "<" in text:
        if (match := _ATTACHED_IOS.search(text)) is not None:
            return text[: match.start()] + text[match.end() :]
        match = _BRACKETED.match(text)
        if match and (match[1].casefold().strip() in _LEFT_OUT or (match.end() == len(text) and _is_notice(match[1]))):
            return text[match.end() :]
    if "(" in text and (match := _ATTACHED_ANDROID.match(text)) is not None:
        known = match[1] or match[3].casefold() in _ATTACHED_WORDS or _PHONE_FILE.match(match[2])
        if known:
            return text[match.end() :]
    last = text[text.rfind("\n") + 1 :]
    if len(last) >= 200 or not _LAST_WORD.match(last, last.rfind(" ") + 1):  # told in no time for most messages
        return None
    if (match := _KIND_LEFT_OUT.search(last)) is not None:
        before = last[: match.start()]
        if not before.strip() or "\u200e" in last:
            return text[: len(text) - len(last)] + before
    return None


def _is_notice(words: str) -> bool:
    """Whether words in angle brackets that are a message of their own look like a phrase of the program."""
    return " " in words.strip() and words[:1].isalpha() and not any(mark in words for mark in "?!@#$;{}()")
