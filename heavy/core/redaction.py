"""Secrets taken out of text at a border: those that are configured, and what looks like a well-known key."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote

SECRET_CHARS_MIN: Final = 6
"""Shorter values are left alone: replacing them would garble everything else."""
CONFIGURED: Final = "[redacted: configured secret]"

_KINDS: Final = {
    "private key": r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----[A-Za-z0-9+/=\s:,.-]{16,20000}?"
    r"(?:-----END [A-Z ]{0,30}PRIVATE KEY-----|\Z)",
    "JSON web token": r"\beyJ[A-Za-z0-9_-]{10,2000}\.eyJ[A-Za-z0-9_-]{10,4000}\.[A-Za-z0-9_-]{10,2000}",
    "AWS key": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "Google key": r"\bAIza[0-9A-Za-z_-]{35}\b",
    "GitHub token": r"\b(?:gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{40,255})\b",
    "GitLab token": r"\bglpat-[A-Za-z0-9_-]{20,100}",
    "Slack token": r"\bxox[abeoprs]-[A-Za-z0-9-]{10,200}",
    "Stripe key": r"\b[rs]k_live_[A-Za-z0-9]{16,200}\b",
    "Hugging Face token": r"\bhf_[A-Za-z0-9]{30,60}\b",
    "npm token": r"\bnpm_[A-Za-z0-9]{36}\b",
    "PyPI token": r"\bpypi-[A-Za-z0-9_-]{60,500}",
    "search key": r"\btvly-(?:[a-z]{2,8}-)?[A-Za-z0-9]{24,64}\b",
    "API key": r"\bsk-(?:ant-|proj-|or-|svcacct-)?(?=[A-Za-z_-]{0,100}[0-9])[A-Za-z0-9_-]{24,300}",
    "authorization": r"(?i:\bauthorization\s{0,3}[:=]\s{0,3}[\"']?(?:bearer|basic)\s{1,3})"
    r"[A-Za-z0-9._~+/=-]{8,4000}",
    "password in a URL": r"(?<=://)[^\s/:@\"'<>]{1,100}:[^\s/:@\"'<>]{1,200}(?=@)",
}


class Redactor:
    """Replaces secrets in text. Cheap for text without any; never fails; idempotent."""

    def __init__(self, secrets: Iterable[str] = (), *, patterns: bool = True) -> None:
        spelled = {way for secret in secrets if len(secret) >= SECRET_CHARS_MIN for way in _spellings(secret)}
        longest_first = sorted(spelled, key=lambda way: (-len(way), way))
        self._secrets = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None
        self._kinds = tuple((f"[redacted: {kind}]", re.compile(form)) for kind, form in _KINDS.items())
        self._patterns = patterns

    def __call__(self, text: str) -> str:
        """`text` without secrets; each is replaced by what kind of thing it was."""
        if self._secrets is not None:
            text = self._secrets.sub(CONFIGURED, text)
        if self._patterns:
            for replacement, form in self._kinds:
                text = form.sub(replacement, text)
        return text


def _spellings(secret: str) -> Iterable[str]:
    """The ways in which tools repeat a secret: as it is, in a URL, in a basic-authentication header."""
    yield secret
    yield quote(secret, safe="")
    encoded = base64.b64encode(secret.encode("utf-8", "surrogatepass")).decode().rstrip("=")
    if len(encoded) >= 2 * SECRET_CHARS_MIN:
        yield encoded


NOTHING: Final = Redactor((), patterns=False)
"""Leaves every text as it is."""
