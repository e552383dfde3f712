"""Texts with a rating: reviews of products, and answers that were rated.

``data.reviews: pairs`` makes instructions of them ("Write a review of ... with 2 of 5 stars." and the review), the
rating beside. ``preferences`` puts the better beside the worse text of one prompt or product; what has no
counterpart is a judged answer by its rating: the upper third desirable, the lower third not, the middle dropped.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ownchat.config import DataConfig
from ownchat.data.columns import Columns, is_prose
from ownchat.data.datasets.preferences import EQUAL, TIE, number
from ownchat.data.ledger import Entry
from ownchat.data.markup import without_markup
from ownchat.data.reading import dropped, question_answer, row_id
from ownchat.data.records import Record, message, record

# Accents count for nothing: "Puntuación" is "puntuacion". After the English names one line for each language.
_RATINGS = """
rating ratings stars star_rating overall overall_rating review_score review_rating review_stars score rate grade
puntuacion calificacion valoracion estrellas
bewertung sterne note punkte punktzahl
notation etoiles evaluation
voto valutazione punteggio stelle
nota avaliacao classificacao pontuacao estrelas
beoordeling sterren cijfer waardering
ocena gwiazdki
betyg stjarnor stjerner vurdering
оценка рейтинг звезды
評価 評点 星 点数
评分 評分 打分 星级 星級
평점 별점
puan
"""
_TEXTS = """
review_text reviewtext review_body reviewbody review_content review text body content comment comments
review_comment_message feedback reviews_text
resena opinion comentario comentarios texto
rezension kundenrezension bewertungstext kundenmeinung meinung kommentar bewertung
avis commentaire critique texte
recensione commento opinione testo
avaliacao resenha opiniao
recensie beoordeling opmerking reactie tekst
opinia recenzja komentarz tresc
recension omdome anmeldelse
отзыв рецензия комментарий текст
レビュー 口コミ クチコミ コメント 感想 本文
评论 評論 评价 評價 点评 內容 内容
리뷰 후기
yorum
"""
_TITLES = """
review_title review_headline summary title headline subject reviews_title
titulo titel uberschrift titre titolo tytul rubrik заголовок タイトル 标题 標題 제목 baslik
"""
_PRODUCTS = """
product_title product_name product item_name item business_name restaurant hotel_name hotel movie_title movie
book_title book app_name app name company
producto nombre_producto articulo
produkt produktname artikel
produit nom_produit article
prodotto articolo
produto
nazwa_produktu vara
товар продукт
商品 商品名 製品 製品名
产品 產品 商品名称 商品名稱
제품 상품
urun
"""
_PARTS = ("review", "rating", "product")  # of ``data.map``
_KEYS = "product_id asin parent_asin item_id business_id hotel_id movie_id book_id app_id productid"
_OUT_OF = re.compile(r"(-?\d+(?:[.,]\d+)?)\s*(?:/|of|out of|von|av|sur|de)\s*(\d+)", re.IGNORECASE)
_FIRST_NUMBER = re.compile(r"-?\d+(?:[.,]\d+)?")
_THUMBS = {
    "thumbs up": 1.0, "up": 1.0, "positive": 1.0, "true": 1.0, "👍": 1.0,
    "thumbs down": 0.0, "down": 0.0, "negative": 0.0, "false": 0.0, "👎": 0.0,
}  # fmt: skip
MOST_HELD = 50_000  # rows without a counterpart; the oldest is let go

_REQUESTS = (
    "Write a review{of}{with_}.",
    "Please write a customer review{of}{with_}.",
    "How would a customer review{it}{with_}?",
    "Give your opinion{on}{with_}.",
)
CLEAR = 0.25  # of the scale: texts whose ratings are closer than one star of five are no pair
MOST_WAITING = 64  # rows of one product without a counterpart


def rate(value: str) -> float | None:
    """The number of a rating; None for what is none.

    >>> rate("4.5"), rate("4 out of 5"), rate("★★★☆☆"), rate("thumbs up"), rate("n/a")
    (4.5, 4.0, 3.0, 1.0, None)
    """
    text = value.strip()
    if (found := number(text)) is not None:
        return found
    if "★" in text or "⭐" in text:
        return float(text.count("★") + text.count("⭐"))
    if text.lower() in _THUMBS:
        return _THUMBS[text.lower()]
    match = _OUT_OF.search(text) or (_FIRST_NUMBER.match(text) if len(text) < 16 else None)
    return number(match[(match.lastindex and 1) or 0].replace(",", ".")) if match else None


def find_ratings(
    names: Sequence[str], sample: Sequence[Mapping[str, str]], columns: Columns | None, data: DataConfig,
    all_rows: Iterable[Mapping[str, str]],
) -> Rated | None:  # fmt: skip
    """The columns of rated texts, or None. ``columns``: question and answer, where their names tell.

    What ``data.map`` calls review, rating and product is taken at its word.
    """
    told = {part: data.map.get(part, "") for part in _PARTS}
    rating = told["rating"] or next((name for name in _named(_RATINGS, names) if _is_rating(name, sample)), "")
    if not (rating or told["review"]):
        return None
    if columns is None or told["review"]:
        columns = None
        free = [name for name in names if name not in (rating, told["product"])]
        texts = [name for name in _named(_TEXTS, free) if is_prose([row.get(name, "") for row in sample])]
        text = told["review"] or next(iter(texts), "")
        if not text:
            return None
        title = next((name for name in _named(_TITLES, free) if name != text), "")
        product = told["product"] or next((name for name in _named(_PRODUCTS, free) if name not in (text, title)), "")
        key = product if told["product"] else next(_named(_KEYS, free), product)
    else:
        text, title, product, key = columns.answer, "", "", ""
    found = [score for row in (all_rows or sample) if (score := rate(row.get(rating, ""))) is not None]
    low, high = scale(min(found), max(found)) if found else (1.0, 5.0)
    return Rated(text, rating, title, product, key, columns, low, high, data.reviews == "preferences")


def scale(least: float, most: float) -> tuple[float, float]:
    """The ends of the scale that ratings are on, from the least and the most seen.

    >>> scale(2, 5), scale(1, 9), scale(0, 1), scale(0, 4)
    ((1.0, 5.0), (1.0, 10.0), (0.0, 1.0), (0.0, 5.0))
    """
    if least < 0:
        end = max(-least, most)
        return -end, end
    top = next((top for top in (1.0, 5.0, 10.0, 20.0, 100.0) if most <= top), most)
    if top == 1.0 and least == 1.0:
        return 1.0, 5.0  # nothing but ones: stars, not thumbs
    return (0.0 if least < 1 or top in (1.0, 100.0) else 1.0), top


@dataclass
class Rated:
    """One column of texts, one of ratings."""

    text: str
    rating: str
    title: str
    product: str
    key: str
    columns: Columns | None
    low: float
    high: float
    pairing: bool
    _held: dict[str, list[_Held]] = field(default_factory=dict)
    _count: int = 0

    def rows(
        self, values: Mapping[str, str], *, file: str, format: str, line: int, offset: int | None = None
    ) -> Iterable[Record | Entry]:
        score = rate(values.get(self.rating, ""))
        if self.columns is None:  # web shops hand reviews out as their pages hold them
            parts = (self.text, self.title, self.product)
            values = {**values, **{name: without_markup(values.get(name, "")) for name in parts}}
        if self.pairing:
            return self._pair(values, score, file, format, line, offset)
        if self.columns is not None:
            made = self.columns.row(values, file=file, format=format, line=line, offset=offset)
        else:
            text = values.get(self.text, "")
            request = self.request(values, score) if text.strip() else ""
            made = question_answer(request, text, "", "", file=file, format=format, line=line, offset=offset)
        if not isinstance(made, Entry):
            made["rating"] = score
        return (made,)

    def request(self, values: Mapping[str, str], score: float | None) -> str:
        """The instruction that a review answers; which of several wordings depends on the text alone."""
        product, title = values.get(self.product, "").strip(), values.get(self.title, "").strip().rstrip(".")
        number = zlib.crc32(values.get(self.text, "").encode("utf-8", "replace"))
        wishes = " and ".join(filter(None, [f'the title "{title}"' if title else "", self._stars(score)]))
        return _REQUESTS[number % len(_REQUESTS)].format(
            of=f" of {product}" if product else "",
            it=f" {product}" if product else " it",
            on=f" on {product}" if product else "",
            with_=f" with {wishes}" if wishes else "",
        )

    def rest(self) -> Iterable[Record | Entry]:
        for held in self._held.values():
            for one in held:
                yield self._alone(one)
        self._held.clear()
        self._count = 0

    def texts(self) -> Sequence[str]:
        return (*self.columns.question, self.text) if self.columns else (self.text,)

    def understood(self, names: Sequence[str]) -> str:
        kind = "rated answers" if self.columns else "reviews"
        parts = self.named()
        text = ", ".join(f'{part} = "{name}"' for part, name in parts.items())
        used = {*parts.values(), *(self.columns.question if self.columns else ())}
        unused = ", ".join(name for name in names if name not in used)
        made = "preferences" if self.pairing else "pairs"
        text = f"{kind}, as {made}: {text}, from {self.low:g} to {self.high:g}"
        return text + (f"; not used: {unused}" if unused else "")

    def named(self) -> dict[str, str]:
        parts = self.columns.named() if self.columns else {"review": self.text}
        more = {"rating": self.rating, "title": self.title, "product": self.product or self.key}
        return parts | {part: name for part, name in more.items() if name}

    def _stars(self, score: float | None) -> str:
        if score is None:
            return ""
        if (self.low, self.high) == (0.0, 1.0):
            return "a thumbs up" if score >= 0.5 else "a thumbs down"
        if self.low < 0:
            share = score / self.high
            return f"a {'positive' if share > 0.15 else 'negative' if share < -0.15 else 'mixed'} opinion"
        return f"{score:g} of {self.high:g} stars"

    # ------------------------------------------------------------------------------------------------ preferences

    def _pair(
        self, values: Mapping[str, str], score: float | None, file: str, format: str, line: int, offset: int | None
    ) -> Iterator[Record | Entry]:
        made: Record | Entry
        if self.columns is not None:
            made = self.columns.row(values, file=file, format=format, line=line, offset=offset)
            key = "" if isinstance(made, Entry) else "\0".join(m["content"] for m in made["messages"][:-1])
        else:
            made = question_answer(
                self.request({**values, self.title: "", self.text: ""}, None), values.get(self.text, ""), "", "",
                file=file, format=format, line=line, offset=offset,
            )  # fmt: skip
            key = values.get(self.key, "").strip()
        if isinstance(made, Entry):
            yield made
        elif score is None:
            yield dropped(file, line, "no rating", offset)
        else:
            yield from self._match(_Held(made, score, line, offset), key)

    def _match(self, new: _Held, key: str) -> Iterator[Record | Entry]:
        waiting = self._held.get(key, []) if key else []
        other = max(waiting, key=lambda one: abs(one.score - new.score), default=None)
        clear = 0.0 if self.columns else CLEAR * (self.high - self.low)
        if other is not None and other.score != new.score and abs(other.score - new.score) >= clear:
            waiting.remove(other)
            self._count -= 1
            if not waiting:
                del self._held[key]
            yield from _joined(*sorted((new, other), key=lambda one: -one.score))
            return
        new.tied = other is not None
        for one in waiting:
            one.tied = True
        if len(waiting) >= MOST_WAITING:
            self._count -= 1
            yield self._alone(waiting.pop(0))
        self._held.setdefault(key or f"\0{new.line} {new.offset}", []).append(new)
        self._count += 1
        if self._count > MOST_HELD:
            oldest = next(iter(self._held))
            for one in self._held.pop(oldest):
                self._count -= 1
                yield self._alone(one)

    def _alone(self, one: _Held) -> Record | Entry:
        """A text without counterpart, judged by its rating alone."""
        source = one.made["source"]
        if one.tied and self.columns is not None:
            return dropped(source["file"], one.line, TIE, one.offset)
        share = (one.score - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        if 1 / 3 < share < 2 / 3:
            return dropped(source["file"], one.line, "neither good nor bad", one.offset)
        return _remade(one, messages=one.made["messages"], desirable=share >= 2 / 3, rating=one.score)


@dataclass
class _Held:
    made: Record
    score: float
    line: int
    offset: int | None = None
    tied: bool = False


def _joined(better: _Held, worse: _Held) -> Iterator[Record | Entry]:
    """One record of two rows: the better one's, into which the worse one is merged."""
    chosen, rejected = better.made["messages"][-1], worse.made["messages"][-1]
    file = worse.made["source"]["file"]
    if chosen["content"].strip() == rejected["content"].strip():
        yield dropped(file, better.line, EQUAL, better.offset)
        yield dropped(file, worse.line, EQUAL, worse.offset)
        return
    yield _remade(
        better, messages=better.made["messages"][:-1], chosen=[message("assistant", chosen["content"])],
        rejected=[message("assistant", rejected["content"])], rating=round(better.score - worse.score, 6),
    )  # fmt: skip
    detail = f"{file}, line {worse.line}: the rejected answer beside line {better.line}"
    id = row_id(file, worse.line, worse.offset)
    yield Entry("row", id, "merged", "the worse one of a pair", parents=(file,), detail=detail)


def _remade(one: _Held, **fields: Any) -> Record:
    source = one.made["source"]
    return record(
        "preference",
        file=source["file"],
        format=source["format"],
        line=one.line,
        offset=one.offset,
        group=one.made["group"],
        **fields,
    )


def _named(wanted: str, names: Sequence[str]) -> Iterator[str]:
    plain = {_bare(name): name for name in reversed(names)}
    return (plain[name] for one in wanted.split() if (name := _bare(one)) in plain)


def _bare(name: str) -> str:
    """Small letters without accents, words joined by "_"."""
    letters = (letter for letter in unicodedata.normalize("NFKD", name.lower()) if not unicodedata.combining(letter))
    return re.sub(r"\W+", "_", "".join(letters)).strip("_")


def _is_rating(name: str, sample: Sequence[Mapping[str, str]]) -> bool:
    filled = [value for row in sample if (value := row.get(name, "").strip())]
    scores = [rate(value) for value in filled]
    good = [score for score in scores if score is not None]
    return bool(good) and len(good) >= 0.6 * len(filled) and max(map(abs, good)) <= 100 and len(set(good)) <= 101
