"""How mail programs announce another mail, sign, and disclaim, in the languages of their users.

Collected from the forms that Gmail, Outlook, Apple Mail, Thunderbird and the list servers write.
"""

from __future__ import annotations

import re

_SAID = (
    r"wrote|writes|said|says|schrieb(?:en)?|schreibt|a écrit|écrit|a ecrit|escribió|escribio"
    r"|escribe|ha scritto|scrive"
    r"|escreveu|schreef|skrev|skriver|kirjoitti|napisał(?:\(a\)|a)?|pisze|napsal(?:\(a\)|a)?"
    r"|írta|написал(?:\(а\)|а)?"
    r"|пишет|пише|yazdı|şunu yazdı|写道|寫道|さんは書きました|のメール|님이 작성|đã viết|menulis|έγραψε|a scris"
    r"|wrote on .*|mentioned|stated|typed|asked|replied|answered|burbled"
)
_MONTH = (
    r"(?:jan|feb|f[ée]v|m[aä]r|mrt|maa|apr|avr|abr|ma[iyj]|jui?n|giu|jul|jui|lug"
    r"|aug|ao[uû]|ago|sep|set|o[ck]t|ott|nov|d[ée][czs]|dic)\w*"
)
_WHEN = (
    rf"(?:\d{{1,2}}[:.h]\d{{2}}|\d{{4}}-\d\d-\d\d|\d{{1,2}}[./]\d{{1,2}}[./]\d{{2,4}}"
    rf"|\b{_MONTH}\.?,? ?\d{{1,4}}"
    rf"|\d{{1,2}}\.? (?:de )?{_MONTH}|\d{{4}}年|\d{{4}}\. ?\d{{1,2}}\.)"
)

# "On Mon, 2 Sep 2002 at 10:00, Jane Roe <jane@example.org> wrote:" as a whole, lines joined.
ATTRIBUTION = re.compile(
    rf"(?:(?:On|Am|Le|El|Il|Em|Op|Den|På|Den|W dniu|Dne|Il giorno|В|Vào|Pada|Στις|At"
    rf"|In(?: the)? message|In article|Quoting|Zitat von"
    rf"|Once upon a time)\b.{{3,350}}\b(?:{_SAID})\b.{{0,120}}?[:：]?"
    rf"|.{{0,200}}{_WHEN}.{{0,200}}\b(?:{_SAID})\b.{{0,60}}?[:：]"
    rf"|.{{0,200}}\b(?:{_SAID})\b.{{0,60}}{_WHEN}.{{0,60}}[:：]"
    rf"|.{{0,160}}<[\w.+=-]+@[\w.-]+>.{{0,40}}\b(?:{_SAID})\b.{{0,60}}?[:：]"
    rf"|.{{0,60}}\d{{4}}年\d{{1,2}}月\d{{1,2}}日.{{0,80}}(?:<[^>]*>|写道|寫道|:).{{0,20}}[:：]"
    rf"|(?:Quoting|Zitat von|Citando|Quoth) .{{2,120}}[:：]"
    rf"|>{{5}}.*(?:{_SAID}).*[:：])",
    re.I,
)
OPENINGS = (
    *("On ", "Am ", "Le ", "El ", "Il ", "Em ", "Op ", "Den ", "På ", "W dniu ", "Dne ", "В ", "Vào ", "Pada "),
    "Στις ",
)
# Where no ">" follows, more is asked for: the time of day, or an address
DATED = re.compile(rf"{_WHEN}|@[\w-]+\.", re.I)
TIMED = re.compile(r"\d{1,2}[:.h]\d{2}|@[\w-]+\.|：")
ATTRIBUTION_ENDS = (":", "：", ">", "...", "wrote", "writes", "said", "schrieb")
# Directly above a quote less is asked for: "On Tue, 27 Aug 2002 John mentioned:", "In message <...>, Jane Ro"
BEFORE_QUOTE = re.compile(
    rf"(?:On|Am|Le|El|Op|At|>{{5}}) .{{0,80}}{_WHEN}.{{0,250}}[:：]$|In (?:message|article) <\S*@\S*>", re.I
)
SAYS = re.compile(
    rf"(?:\b(?:{_SAID})\b.{{0,80}}|<[\w.+-]+@[\w.-]+>.{{0,20}}|^(?:Quoting"
    rf"|Quoth) .*)[:：]?$",
    re.I,
)
DATE_LINE = re.compile(rf"^(?:On|Am|Le|El|Il|Em|Op|Den|At|>{{5}}|\*+) .*{_WHEN}", re.I)

BORDER = re.compile(r"^[ \t]*(?:[-_*=]{2,}[ \t]*[^-_*\n]{0,60}[ \t]*[-_*=]{2,}|[-_]{10,})[ \t]*$")
ORIGINAL = re.compile(
    r"(?:original|ursprüngliche|urspr\.|message d.origine|mensaje original"
    r"|messaggio originale|mensagem original"
    r"|oorspronkelijk|ursprungligt|opprinnelig|oprindelig|alkuperäinen|oryginalna|původní"
    r"|исходное|原始|元のメ|원본|reply message"
    r"|antwort|nachricht von)",
    re.I,
)
FORWARDED = re.compile(
    r"(?:forwarded|weitergeleitete|transféré|reenviado|inoltrato|encaminhada|doorgestuurd"
    r"|vidarebefordrat|videresend"
    r"|videresendt|пересыла|przekazana|转发|轉寄|転送|전달된|forwarding note)",
    re.I,
)  # fmt: skip
FORWARDED_LINE = re.compile(
    r"^(?:Begin forwarded message|Anfang der weitergeleiteten (?:Nachricht|E-Mail)"
    r"|Début du message (?:réexpédié|transféré)|Inicio del mensaje reenviado|Inizio messaggio inoltrato)\s*:",
    re.I,
)

_KEYS = (
    r"From|Von|De|Da|Van|Från|Fra|Lähettäjä|Od|От|Desde|发件人|寄件者|寄件人|差出人|보낸 사람|Gönderen",
    r"Sent|Date|Gesendet(?: am)?|Datum|Envoyé(?: le)?|Enviado(?: el| em)?|Fecha|Data|Inviato"
    r"|Verzonden|Skickat|Sendt|Dato"
    r"|Lähetetty|Wysłano|Отправлено|Дата|Odesláno|发送时间|寄件日期|日期|送信日時|日付|보낸 날짜|Tarih"
    r"|Gönderilme Tarihi",
    r"To|An|À|Para|A|Aan|Till|Til|Vastaanottaja|Do|Komu|Кому|收件人|收件者|宛先|받는 사람|Kime|Pour",
    r"Subject|Betreff|Objet|Asunto|Oggetto|Assunto|Onderwerp|Ämne|Emne|Aihe|Temat|Тема"
    r"|Předmět|主题|主旨|件名|제목|Konu",
    r"Cc|Kopie|Kopia|Kopi|Copie|CCO|Bcc|Копия|抄送|副本|Reply-To|Antwort an|Importance|Wichtigkeit",
)
HEADER_LINE = re.compile(
    r"^[ \t]*\*?(?:" + "|".join(f"({key})" for key in _KEYS) + r")[ \t]?:\*?(?=[ \t\xa0]|\*|$)", re.I
)
HEADER_START = re.compile(rf"^[ \t]*\*?(?:{_KEYS[0]})[ \t]?[:：]\*?[ \t\xa0]*\S", re.I)

DEVICE = re.compile(
    r"(?:Sent (?:from|via|using|with) (?:my |the |a )?[\w .+®™'()-]{2,60}|Get Outlook for \w+.{0,40}"
    r"|(?:Von meinem|Gesendet (?:von|mit|über)|Diese Nachricht wurde von meinem) .{2,60}|Von .{2,40} gesendet"
    r"|Envoyé (?:de(?:puis)?|à partir de|avec) .{2,60}|Télécharger Outlook pour .{2,20}"
    r"|(?:Enviado|Enviada) (?:desde|do|de|a partir de) (?:mi |meu |minha )?.{2,60}|Obtener Outlook para .{2,20}"
    r"|Inviato (?:da|dal|con) .{2,60}|(?:Verstuurd|Verzonden) (?:vanaf|met|via) .{2,60}"
    r"|Skickat från .{2,60}|Sendt fra .{2,60}|Lähetetty .{2,30}|Wysłan[eo] z .{2,60}"
    r"|Отправлено (?:с|из) .{2,60}"
    r"|(?:发自|從我的|寄自).{2,30}|.{2,30}から送信|나의 .{2,20}에서 보냄)(?:[ \t]*<https?://\S+>)?\.?",
    re.I,
)
CLOSING = re.compile(
    r"(?:(?:with )?(?:best|kind|warm|many)?[ -]?(?:regards|wishes)|(?:kindest"
    r"|warmest) regards|best|cheers|sincerely(?: yours)?"
    r"|yours(?: sincerely| faithfully| truly)?|thanks(?: a lot| again| and (?:best "
    r"|kind )?regards)?|many thanks|thank you"
    r"|mit (?:freundlichen|besten|lieben|herzlichen) grü(?:ß|ss)en|(?:viele|liebe|beste"
    r"|herzliche|freundliche|schöne) grü(?:ß|ss)e.{0,20}"
    r"|mfg|vg|lg|gru(?:ß|ss)|(?:bien )?cordialement"
    r"|(?:sincères )?salutations(?: distinguées)?|bien à vous|amicalement"
    r"|(?:un )?(?:cordial )?saludos?(?: cordiales)?|atentamente|un abrazo|cordiali saluti"
    r"|(?:distinti )?saluti|cordialmente"
    r"|atenciosamente|abraços?|met vriendelijke groet(?:en)?|groet(?:en|jes)?"
    r"|(?:med )?vänliga? hälsning(?:ar)?|mvh"
    r"|med venlig hilsen|med vennlig hilsen|z poważaniem|pozdrawiam|с уважением|saygılarımla)[ ,.!;-]*",
    re.I,
)

# What a firm must put under its letters: register, managers, tax number
IMPRINT = re.compile(
    r"\bHR[AB]\b|Geschäftsführ|Registergericht|Amtsgericht|Handelsregister|Firmenbuch|USt-?Id|\bUID\b"
    r"|\bSIRE[TN]\b|\bRCS\b|TVA intracom|Registro Mercantil|\bC\.?I\.?F\.?:|\bP\. ?IVA\b|Partita IVA|\bCNPJ\b"
    r"|\bKvK\b|\bNIP\b|\bKRS\b|\bREGON\b|\bИНН\b|Org\.? ?nr|Company (?:No|Reg)|Registered (?:in|office)"
    r"|VAT (?:No|Reg|ID)|Managing Director",
    re.I,
)

RULER = re.compile(r"[ \t]*[-_=*~#+.]{5,}(?:[-_=*~>\s]*[-_=*~>])?[ \t]*")
FOOTER = re.compile(
    r"mailing[ -]?list|listinfo|unsubscri|subscri(?:be|ption)|abbestellen|abmelden|désabonn"
    r"|désinscri|darse de baja|yahoo! ?groups"
    r"|this \S{2,12} ?e-?mail is sponsored|sponsored by|List maintainer|afmelden|avregistrera"
    r"|cancellare|to post a message|virus",
    re.I,
)
FOOTER_ALONE = re.compile(
    r"^(?:to (?:unsubscribe|subscribe|post)\b|unsubscribe\b|you (?:received"
    r"|are receiving) this|you are subscribed|you're receiving"
    r"|your use of yahoo! groups is|http\S+/(?:mailman/)?listinfo/\S+\s*$|this (?:sf\.?net"
    r"|sourceforge) ?e-?mail is sponsored"
    r"|virus-free|this (?:e-?mail|message) (?:has been|was) (?:checked|scanned)"
    r"|diese (?:e-?mail|nachricht) wurde .{0,30}virus"
    r"|checked by avg|no virus found|please consider the environment|bitte (?:prüfen"
    r"|denken) sie.{0,60}(?:umwelt|ausdruck)"
    r"|(?:do you yahoo!\?|get your free|join the world.s largest e-?mail|msn photos"
    r"|chat with friends online|protect your pc)"
    r"|.{0,200}\bmailing list\s*\n\S+@\S+\s*\n\s*https?://\S+)",
    re.I,
)  # fmt: skip
DISCLAIMER_WORDS = (
    "confiden",
    "privileg",
    "intended",
    "vertraulich",
    "riservat",
    "vertrouwelijk",
    "disclaimer",
    "bestimmt",
)
DISCLAIMER = re.compile(
    r"(?:this|the information (?:contained )?in this"
    r"|the contents? of this)[ \w,-]{0,40}?(?:e-?mail|message|communication|transmission)"
    r"\b[^.]{0,200}?\b(?:confidential|privileged|intended (?:only|solely|for)|legally protected)"
    r"|if you (?:are not the intended|have received this (?:e-?mail|message|communication))"
    r"|\b(?:disclaimer|confidentiality notice|vertraulichkeitshinweis|avis de confidentialité)\s*:"
    r"|diese (?:e-?mail|nachricht)\b[^.]{0,120}\bvertraulich|der inhalt dieser (?:e-?mail"
    r"|nachricht)[^.]{0,120}(?:vertraulich|bestimmt)"
    r"|(?:ce|le présent) (?:message|courriel|e-?mail)\b[^.]{0,200}\bconfidentiel"
    r"|este (?:mensaje|correo)\b[^.]{0,200}\bconfidencial|esta mensagem\b[^.]{0,200}\bconfidenci"
    r"|(?:questo messaggio|questa e-?mail|le informazioni contenute)\b[^.]{0,200}\b(?:riservat|confidenzial)"
    r"|(?:dit|deze) (?:bericht|e-?mail)\b[^.]{0,200}\bvertrouwelijk",
    re.I,
)
SPONSOR = re.compile(r"^-{5,} ?Yahoo! Groups Sponsor ?-{5,}.*?\n[\s\S]{0,2000}?^-{10,}[_~>-]*[ \t]*$", re.M)

_NAME = (
    re.compile(
        rf",?\s*[\"']?([^\W\d][^\d<>,\"]{{1,60}}?)[\"']?\s*(?:[<\[(]{{1,2}}[^<>\])]*[>\])]{{1,2}}\s*)?(?:,\s*)?"
        rf"(?:\b(?:{_SAID})\b)",
        re.I,
    ),
    re.compile(
        r"(?:\b(?:schrieb|schreef|skrev|schreibt))\s+[\"']?([^\W\d][^\d<>:\"]{1,60}?)[\"']?\s*(?:[<(][^<>)]*[>)])?\s*[:：]",
        re.I,
    ),
    re.compile(
        rf"^[ \t]*\*?(?:{_KEYS[0]})[ \t]?[:：]\*?\s*[\"']?([^\W\d][^<>\[\"@]{{1,60}}?)[\"']?\s*(?:[<\[(].*)?$", re.I
    ),
)
_ZONE = re.compile(r"^(?:(?:um|at|à|a las|alle|uhr|kl|AM|PM|[A-Z]{2,3}[ST]T?|UTC|GMT)\b[ ,]*)+(?=\S)")
_NO_NAME = re.compile(rf"^(?:on|am|le|el|il|em|op|at|um|uhr|you|he|she|they|it|i)$|\b(?:{_MONTH}) \d", re.I)


def author(attribution: str) -> str:
    """The name in an attribution, empty if it is not plain.

    >>> author("On Mon, 2 Sep 2002 at 10:00, Jane Roe <jane@example.org> wrote:"), author("Von: Max Muster <m@x.de>")
    ('Jane Roe', 'Max Muster')
    """
    for pattern in reversed(_NAME):
        if match := pattern.search(attribution[-250:]):
            name = " ".join(match[1].split()).strip(" ,.-'")
            name = _ZONE.sub("", name)
            if name and len(name.split()) <= 5 and not _NO_NAME.search(name):
                return name
    return ""
