"""Formats: an exact checker per name, and where the format is regular the shape that a prefix must be able to reach.

`idn-hostname` and `idn-email` need the `idna` package (RFC 5891 to 5893); all others stand on the standard library.
"""

from __future__ import annotations

import base64
import binascii
import calendar
import importlib.util
import json
import re
from typing import TYPE_CHECKING, NamedTuple

from treille.constraints.json import uris
from treille.constraints.json.patterns import PatternError, parse

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_DATE = r"[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])"
_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:(?:[0-5][0-9]|60)(?:\.[0-9]+)?(?:[zZ]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
_CLOCK = re.compile(r"([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.[0-9]+)?(?:[zZ]|([+-])([0-9]{2}):([0-9]{2}))")
_DAYS = r"(?:[0-9]+D|[0-9]+M(?:[0-9]+D)?|[0-9]+Y(?:[0-9]+M(?:[0-9]+D)?)?)"
_HOURS = r"T(?:[0-9]+S|[0-9]+M(?:[0-9]+S)?|[0-9]+H(?:[0-9]+M(?:[0-9]+S)?)?)"
_DURATION = rf"P(?:[0-9]+W|{_DAYS}(?:{_HOURS})?|{_HOURS})"
_IPV4 = r"(?:(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])\.){3}(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])"
# `01` is no octet: some programs read it as octal.
_IPV4 = _IPV4.replace("1?[0-9]?[0-9]", "1[0-9][0-9]|[1-9]?[0-9]")
_UUID = r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
_POINTER = r"(?:/(?:[^~/]|~[01])*)*"
_RELATIVE_POINTER = rf"(?:0|[1-9][0-9]*)(?:#|{_POINTER})"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9\-]{0,61}[A-Za-z0-9])?"
_HOSTNAME = rf"{_LABEL}(?:\.{_LABEL})*"
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-]+"
_QUOTED = r'"(?:[ !#-\[\]-~]|\\[ -~])*"'
_LOCAL = rf"(?:{_ATOM}(?:\.{_ATOM})*|{_QUOTED})"
_LOCAL_IDN = _LOCAL.replace("~\\-]+", "~\\-\u0080-\U0010ffff]+").replace("-~])*", "-~\u0080-\U0010ffff])*")


class Format(NamedTuple):
    """A format's exact check, and a pattern that all its texts match (None: nothing is known before the end)."""

    accepts: Callable[[str], bool]
    shape: str | None = None


def _matcher(expression: str) -> Callable[[str], bool]:
    """A check that a text is exactly one match of `expression`."""
    compiled = re.compile(expression, re.DOTALL)
    return lambda text: compiled.fullmatch(text) is not None


def is_date(text: str) -> bool:
    """Whether `text` is a full-date (RFC 3339) of the calendar."""
    if re.fullmatch(_DATE, text) is None:
        return False
    year, month, day = int(text[:4]), int(text[5:7]), int(text[8:])
    # calendar.monthrange knows years from 1; the year 0 is a leap year of the proleptic calendar.
    return day <= (calendar.monthrange(year or 4, month)[1])


def is_time(text: str) -> bool:
    """Whether `text` is a full-time (RFC 3339); a leap second only where it is 23:59:60 in UTC."""
    found = _CLOCK.fullmatch(text)
    if found is None or re.fullmatch(_TIME, text) is None:
        return False
    if found[3] != "60":
        return True
    offset = int(f"{found[4]}{int(found[5]) * 60 + int(found[6])}") if found[4] else 0
    return (int(found[1]) * 60 + int(found[2]) - offset) % 1440 == 1439


def is_date_time(text: str) -> bool:
    """Whether `text` is a date-time (RFC 3339)."""
    return is_date(text[:10]) and text[10:11] in {"t", "T"} and is_time(text[11:])


def is_hostname(text: str) -> bool:
    """Whether `text` is a host name (RFC 1123): labels of 1 to 63, 253 characters in all."""
    return len(text) <= 253 and re.fullmatch(_HOSTNAME, text) is not None


def is_idn_hostname(text: str) -> bool:
    """Whether `text` is an internationalised host name (RFC 5890), contextual rules included."""
    import idna

    labels = re.split("[.\u3002\uff0e\uff61]", text)
    try:
        return all(labels) and all(len(idna.alabel(label)) <= 63 for label in labels)
    except (idna.IDNAError, UnicodeError):
        return False


def _address(text: str, local: str, host: Callable[[str], bool]) -> bool:
    """Whether `text` is a mailbox: a local part, `@`, and a host name or an address literal (RFC 5321)."""
    name, at, domain = text.rpartition("@")
    if not at or re.fullmatch(local, name) is None or len(name.encode()) > 64:
        return False
    if domain.startswith("[") and domain.endswith("]"):
        literal = domain[1:-1]
        return uris.is_ipv6(literal[5:]) if literal[:5].lower() == "ipv6:" else re.fullmatch(_IPV4, literal) is not None
    return host(domain)


def is_email(text: str) -> bool:
    """Whether `text` is a mailbox (RFC 5321)."""
    return _address(text, _LOCAL, is_hostname)


def is_idn_email(text: str) -> bool:
    """Whether `text` is an internationalised mailbox (RFC 6531)."""
    return _address(text, _LOCAL_IDN, is_idn_hostname)


def is_regex(text: str) -> bool:
    """Whether `text` is a regular expression of ECMA-262 (flag `u`)."""
    try:
        parse(text, syntax_only=True)
    except PatternError:
        return False
    return True


def _refuse(name: str) -> None:
    """Refuses `NaN` and the infinities, which are no JSON."""
    raise ValueError(name)


def is_content(text: str, encoding: str | None, media_type: str | None) -> bool:
    """Whether `text` is what `contentEncoding` and `contentMediaType` of draft 7 say; base64 and JSON are known."""
    content: str | bytes = text
    if encoding == "base64":
        try:
            content = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            return False
    if media_type == "application/json":
        try:
            json.loads(content, parse_constant=_refuse)
        except (ValueError, RecursionError):
            return False
    return True


FORMATS: Mapping[str, Format] = {
    "date": Format(is_date, f"^{_DATE}$"),
    "time": Format(is_time, f"^{_TIME}$"),
    "date-time": Format(is_date_time, f"^{_DATE}[tT]{_TIME}$"),
    "duration": Format(_matcher(_DURATION), f"^{_DURATION}$"),
    "email": Format(is_email),
    "idn-email": Format(is_idn_email),
    "hostname": Format(is_hostname, r"^(?:[A-Za-z0-9](?:-*[A-Za-z0-9])*)(?:\.[A-Za-z0-9](?:-*[A-Za-z0-9])*)*$"),
    "idn-hostname": Format(is_idn_hostname),
    "ipv4": Format(_matcher(_IPV4), f"^(?:{_IPV4})$"),
    "ipv6": Format(uris.is_ipv6, "^[0-9A-Fa-f:.]+$"),
    "uri": Format(uris.is_uri, r"^[A-Za-z][A-Za-z0-9+.\-]*:[!-~]*$"),
    "uri-reference": Format(uris.is_uri_reference, "^[!-~]*$"),
    "iri": Format(uris.is_iri, r"^[A-Za-z][A-Za-z0-9+.\-]*:[^\x00-\x20]*$"),
    "iri-reference": Format(uris.is_iri_reference, r"^[^\x00-\x20]*$"),
    "uri-template": Format(uris.is_uri_template, r"^[^\x00-\x20]*$"),
    "uuid": Format(_matcher(_UUID), f"^{_UUID}$"),
    "json-pointer": Format(_matcher(_POINTER), f"^{_POINTER}$"),
    "relative-json-pointer": Format(_matcher(_RELATIVE_POINTER), f"^{_RELATIVE_POINTER}$"),
    "regex": Format(is_regex),
}

# What a format needs that is not always there.
_NEEDS = {"idn-hostname": "idna", "idn-email": "idna"}


def missing_package(name: str) -> str | None:
    """The package a format cannot be checked without, if it is not installed."""
    package = _NEEDS.get(name)
    return package if package is not None and importlib.util.find_spec(package) is None else None
