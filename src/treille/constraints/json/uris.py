"""Exact checks of URIs, IRIs and URI templates: the grammars of RFC 3986, 3987 and 6570 as linear expressions."""

from __future__ import annotations

import ipaddress
import re

_UCS = (
    "\u00a0-\ud7ff\uf900-\ufdcf\ufdf0-\uffef"
    + "".join(f"{chr(plane << 16)}-{chr((plane << 16) + 0xFFFD)}" for plane in range(1, 14))
    + f"{chr(0xE1000)}-{chr(0xEFFFD)}"
)
_PRIVATE = "\ue000-\uf8ff" + "".join(f"{chr(plane << 16)}-{chr((plane << 16) + 0xFFFD)}" for plane in (15, 16))


def _reference(letters: str, private: str) -> re.Pattern[str]:
    """The grammar of a reference; `letters` are allowed besides ASCII, `private` in the query only."""
    free = rf"A-Za-z0-9\-._~!$&'()*+,;={letters}"
    percent = "%[0-9A-Fa-f]{2}"
    char, segment = rf"(?:[{free}:@]|{percent})", rf"(?:[{free}@]|{percent})"
    host = rf"\[(?P<literal>[0-9A-Fa-f:.]+|[vV][0-9A-Fa-f]+\.[{free}:]+)\]|(?:[{free}]|{percent})*"
    authority = rf"//(?:(?:[{free}:]|{percent})*@)?(?:{host})(?::[0-9]*)?(?:/{char}*)*"
    absolute = rf"/(?:{char}+(?:/{char}*)*)?"
    with_scheme = rf"(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]*):(?:{authority}|{absolute}|{char}+(?:/{char}*)*|)"
    relative = rf"{authority}|{absolute}|{segment}+(?:/{char}*)*|"
    relative = relative.replace("?P<literal>", "?P<relative>")
    return re.compile(rf"(?:{with_scheme}|{relative})(?:\?(?:{char}|[/?{private}])*)?(?:\#(?:{char}|[/?])*)?")


_URI, _IRI = _reference("", ""), _reference(_UCS, _PRIVATE)
_VARIABLE = r"(?:[A-Za-z0-9_]|%[0-9A-Fa-f]{2})(?:\.?(?:[A-Za-z0-9_]|%[0-9A-Fa-f]{2}))*(?::[1-9][0-9]{0,3}|\*)?"
_TEMPLATE = re.compile(
    rf"(?:[!#$&(-;=?-\[\]_a-z~{_UCS}{_PRIVATE}]|%[0-9A-Fa-f]{{2}}"
    rf"|\{{[+#./;?&=,!@|]?{_VARIABLE}(?:,{_VARIABLE})*\}})*"
)


def _is_reference(grammar: re.Pattern[str], text: str, *, absolute: bool) -> bool:
    """Whether `text` is a reference, with a scheme if `absolute`."""
    found = grammar.fullmatch(text)
    if found is None or (absolute and found["scheme"] is None):
        return False
    literal = found["literal"] or found["relative"]
    return literal is None or literal[0] in "vV" or is_ipv6(literal)


def is_ipv6(text: str) -> bool:
    """Whether `text` is an IPv6 address (RFC 4291), without a zone."""
    if not text.isascii() or "%" in text or "/" in text:
        return False
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def is_uri(text: str) -> bool:
    """Whether `text` is a URI (RFC 3986, with a scheme)."""
    return _is_reference(_URI, text, absolute=True)


def is_uri_reference(text: str) -> bool:
    """Whether `text` is a URI or a relative reference (RFC 3986)."""
    return _is_reference(_URI, text, absolute=False)


def is_iri(text: str) -> bool:
    """Whether `text` is an IRI (RFC 3987, with a scheme)."""
    return _is_reference(_IRI, text, absolute=True)


def is_iri_reference(text: str) -> bool:
    """Whether `text` is an IRI or a relative reference (RFC 3987)."""
    return _is_reference(_IRI, text, absolute=False)


def is_uri_template(text: str) -> bool:
    """Whether `text` is a URI template (RFC 6570)."""
    return _TEMPLATE.fullmatch(text) is not None
