"""A person's client: asks one of the servers that are there over HTTP, and asks again where no answer came."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import requests

from web.settings import Settings
from web.token import load_token

_SECONDS = (1.0, 5.0)  # to connect, and for the answer


class Away(Exception):
    """No server answered, or none could: the request may or may not have been carried out, and is to be repeated."""


class Refused(Exception):
    """The server said no. `code` is the problem's."""

    def __init__(self, code: str, detail: str) -> None:
        """As the problem document says."""
        super().__init__(f"{code}: {detail}")
        self.code = code


class Client:
    """The API of whichever server lives. `urls` is replaced as servers come and go."""

    def __init__(self, settings: Settings, chance: random.Random) -> None:
        """Of the installation with these settings."""
        self.urls: Sequence[str] = ()
        self._token_file: Path = settings.token_file
        self._random = chance
        self._session = requests.Session()
        self._session.trust_env = False

    def ask(self, method: str, path: str, body: Any = None, *, key: str | None = None) -> Any:
        """The answer's JSON.

        Raises:
            Away: nobody knows what came of it.
            Refused: nothing came of it.
        """
        if not self.urls:
            raise Away("no server is there")
        headers = {"Authorization": f"Bearer {load_token(self._token_file).value}"}
        if key is not None:
            headers["Idempotency-Key"] = key
        url = f"{self._random.choice(self.urls)}/api/v1{path}"
        try:
            answer = self._session.request(method, url, json=body, headers=headers, timeout=_SECONDS)
        except requests.RequestException as error:
            raise Away(type(error).__name__) from error
        if answer.status_code >= 500:
            raise Away(f"{answer.status_code}: {answer.text[:200]}")
        document = answer.json()
        if answer.status_code >= 400:
            raise Refused(document["code"], document["detail"])
        return document
