"""A provider whose login every caller brings along (`auth = "caller"`): a subscription is a person's, and not ours to hand out.

The caller's own key for us travels in `x-aigw-key`; its login for the provider where the provider wants it, with whatever else
the caller's program says of itself. All of that goes on as it came, and nothing is added: nobody is made to look like another
program. What is not the provider's business stays here: framing, cookies, the way the request took, and our own headers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256

from aigw.consumer import KEY_PREFIX as PREFIX
from aigw.deployment import ProviderKey
from aigw.errors import CallerError, PolicyError, UpstreamError
from aigw.exchange import Headers, Target, UpstreamRequest
from aigw.protocols.operations import Operation
from aigw.providers.compatible import MODEL, CompatibleProvider

_STAYS = frozenset(
    """host content-length content-type transfer-encoding connection keep-alive upgrade te trailer expect accept-encoding accept
    proxy-authorization proxy-connection proxy-authenticate cookie forwarded via x-real-ip x-goog-api-key""".split()  # noqa: SIM905
)
_STAYS_BEGINNING = ("x-forwarded-", "x-aigw-")
_MOST = 100  # lines
_LONGEST = 16 * 1024  # characters of a line; a login is a JWT of a few KB at most
_VALUE = re.compile(r"[ -~]*")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")


class CallersOwn(CompatibleProvider):
    """Implements `Provider`."""

    own_login = True

    def login(self, headers: Mapping[str, str], ours: bytes) -> ProviderKey:
        """The caller's login, as a key of this one request. *ours* is the SHA-256 of its key for this gateway, which is no
        login whatever it looks like. Raises PolicyError when there is none."""
        said = headers.get("authorization") or ""
        for token in (said[7:].strip() if said[:7].lower() == "bearer " else "", headers.get("x-api-key") or ""):
            if token and not token.startswith(PREFIX) and sha256(token.encode("utf-8", "replace")).digest() != ours:
                break
        else:
            raise PolicyError(
                "policy_key_missing",
                f"The provider {self.name!r} takes your own login for it. Send that where the provider wants it (Authorization "
                "or x-api-key), and your key for this gateway in the header x-aigw-key.",
            )
        return ProviderKey(self.name, token)

    def prepare(
        self,
        operation: Operation,
        body: bytes,
        key: ProviderKey | None,
        headers: Mapping[str, str],
        model: str = "",
        *,
        stream: bool = False,
    ) -> UpstreamRequest:
        endpoint = self._endpoints.get(operation.name)
        if endpoint is None:
            raise CallerError("caller_unsupported", f"The provider {self.name!r} does not serve {operation.path}.")
        path = endpoint.path.replace(MODEL, model)
        fixed = {"content-type": "application/json", "accept": "*/*", "accept-encoding": "identity", **self._headers}
        return UpstreamRequest(
            Target("POST", endpoint.origin, path, fixed),
            body,
            self._as_it_came(headers, "" if key is None else key.secret),
            connect_timeout=self._connect,
            first_byte_timeout=self._first_byte if stream else self._plain,
            idle_timeout=self._idle,
            timeout=self._total,
        )

    def _as_it_came(self, headers: Mapping[str, str], login: str) -> bytes:
        lines = []
        for name, value in headers.items():
            name = name.lower()  # noqa: PLW2901 - the same header
            if name in _STAYS or name.startswith(_STAYS_BEGINNING) or name in self._headers:
                continue
            if name in ("authorization", "x-api-key") and not (login and value.strip().endswith(login)):
                continue  # ours, not the provider's
            if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value) or len(value) > _LONGEST:
                raise CallerError(
                    "caller_invalid_request",
                    f"The header {name[:40]!r} must be printable ASCII of at most {_LONGEST} characters.",
                )
            lines.append(f"{name}: {value}\r\n")
        if len(lines) > _MOST:
            raise CallerError("caller_invalid_request", f"The request has more than {_MOST} headers.")
        return "".join(lines).encode("ascii")

    def judge(self, status: int, headers: Headers, body: bytes, key: ProviderKey | None) -> UpstreamError:
        """One caller's login says nothing of another's, so nothing rests; and what is wrong with it is for the caller to know,
        by the status that its program acts on (it renews a login at a 401)."""
        error = super().judge(status, headers, body, key)
        if error.fault in ("key", "account"):
            error.fault = ""
            if status in (401, 402, 403, 429):
                error.status = status
        return error
