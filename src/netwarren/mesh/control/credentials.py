"""Who a proxy says that it is to its authority: headers with a token, which somebody renews in a file, and its cluster.

Rules: the file is read for each call, as ztunnel does (`src/identity/auth.rs`); where there is none there is no token.
Does not belong here: the calls (see `certificate_client`), asking for any of it (our own `server` does not).
"""

import os
from dataclasses import dataclass, field
from typing import Self

from netwarren.errors import MeshError

TOKEN_PATH = "./var/run/secrets/tokens/istio-token"
"""Where Kubernetes puts the token of a ztunnel's service account."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """A token's file, or the token itself, and the name of the proxy's cluster; ``""`` is nothing to say."""

    token_path: str = ""
    token: str = field(default="", repr=False)
    cluster_id: str = ""

    @classmethod
    def told(cls, auth_token: str, cluster_id: str) -> Self:
        """What ztunnel's AUTH_TOKEN means: a file or, where there is none of that name now, the token itself.

        What is written as a path stays one, there or not: ztunnel would send it as the token.
        """
        if auth_token.startswith(("/", "./", "../")) or os.path.exists(auth_token):
            return cls(token_path=auth_token, cluster_id=cluster_id)
        return cls(token=auth_token, cluster_id=cluster_id)

    def headers(self) -> list[tuple[str, str]]:
        """The headers of a call that is made now. Raises `MeshError` for what is no token, or no header can say."""
        found = []
        if token := self._read() if self.token_path else self.token:
            found.append(("authorization", f"Bearer {token}"))
        if self.cluster_id:
            found.append(("clusterid", _sayable(self.cluster_id, "the name of the cluster")))
        return found

    def _read(self) -> str:
        try:
            with open(self.token_path, encoding="latin-1") as file:
                text = file.read().strip()
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise MeshError(f"the token of {self.token_path} cannot be read: {error.strerror}") from None
        what = f"the token of {self.token_path}"
        if not text:
            raise MeshError(f"{what} is empty")
        return _sayable(text, what)


def _sayable(text: str, what: str) -> str:
    if not (text.isascii() and text.isprintable()):
        raise MeshError(f"{what} has characters that no header has; printable ASCII would do")
    return text
