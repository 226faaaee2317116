"""The report's words in its languages: messages, a codebook's own words, numbers, dates and plural forms."""

import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml
from babel import Locale
from babel.dates import format_date
from babel.numbers import format_decimal

from expectations.codebook import Codebook

# The first is the one that a codebook and the tables are written in. Values: Babel's locale, HTML's `lang`.
LANGUAGES = {"en": ("en_GB", "en"), "zh": ("zh_Hans_CN", "zh-Hans")}
MINUS = "−"


@dataclass(frozen=True)
class Words:
    """One language. `phrases` translate sentences that the tables hold, `{}` standing for a word that is kept."""

    language: str
    messages: Mapping[str, Any]
    phrases: Mapping[str, str]
    names: Mapping[str, str]

    @property
    def tag(self) -> str:
        """The language in HTML."""
        return LANGUAGES[self.language][1]

    @property
    def locale(self) -> str:
        return LANGUAGES[self.language][0]

    def say(self, key: str, **values: Any) -> str:
        """A message with its values; `n` chooses the plural form. Raises KeyError for an unknown key or value."""
        message = self.messages[key]
        if isinstance(message, Mapping):
            message = message.get(Locale.parse(self.locale).plural_form(values["n"])) or message["other"]
            values["n"] = self.count(values["n"])
        return str(message).format(**values)

    def count(self, n: float) -> str:
        return format_decimal(n, format="#,##0", locale=self.locale).replace("-", MINUS)

    def number(self, value: float, decimals: int, signed: bool = False) -> str:
        """A rounded number; a rounded nought has no sign."""
        pattern = "#,##0" + ("." + "0" * decimals if decimals else "")
        rounded = round(value, decimals) + 0.0
        text = format_decimal(rounded, format=pattern, locale=self.locale).replace("-", MINUS)
        return f"+{text}" if signed and rounded > 0 else text

    def date(self, day: datetime.date) -> str:
        return format_date(day, format="long", locale=self.locale)

    def short_date(self, day: datetime.date) -> str:
        """A short date for an axis."""
        return format_date(day, format="d MMM y" if self.language == "en" else "y/M/d", locale=self.locale)

    def name(self, text: str) -> str:
        """A codebook's word, with or without its capital; as the codebook has it where it brings no translation."""
        return self.names.get(text) or self.names.get(text[:1].lower() + text[1:]) or text

    def translate(self, sentence: str) -> str:
        """A sentence of a table; as it stands where no phrase is known."""
        for pattern, phrase in self.phrases.items():
            parts = [re.escape(part) for part in pattern.split("{}")]
            if found := re.fullmatch("(.+)".join(parts), sentence):
                return phrase.format(*(self.name(group) for group in found.groups()))
        return sentence


def read_words(book: Codebook) -> list[Words]:
    """The report's languages, with the codebook's own words in each."""
    translations = {str(language): words for language, words in book.translations.items()}
    return [
        Words(language, messages, phrases, translations.get(language, {}))
        for language in LANGUAGES
        for messages, phrases in [read_messages(language)]
    ]


@cache
def read_messages(language: str) -> tuple[Mapping[str, Any], Mapping[str, str]]:
    """Messages by key, and phrases by their English."""
    raw = yaml.safe_load((files("jobs") / "messages" / f"{language}.yaml").read_text(encoding="utf-8"))
    return raw["messages"], raw.get("phrases", {})
