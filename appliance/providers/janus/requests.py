"""Requests to the server, and who waits for which answer. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from appliance.providers.janus.effects import CancelTimer, Effect, Send, StartTimer, Timer
from appliance.vocabulary import Json

__all__ = ["Answer", "Asked", "Requests", "nothing"]

ANSWER_S: Final = 5.0  # without any answer of the server, while there is a request that waits for one

Answer = Callable[[Json], Sequence[Effect]]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that waits. ``failed`` takes an error that only concerns the request itself."""

    body: Json = field(repr=False)
    done: Answer
    failed: Answer | None = None


def nothing(_: Json) -> Sequence[Effect]:
    """Of an answer that changes nothing."""
    return []


class Requests:
    """Of one membership. ``new_transaction`` gives unguessable, unique words, ``token`` the one that holds now;
    ``session`` is the one at the server."""

    def __init__(self, new_transaction: Callable[[], str], *, token: Callable[[], str], secret: str) -> None:
        self._new_transaction = new_transaction
        self._token = token
        self._secret = secret
        self._waiting: dict[str, Asked] = {}
        self._held: list[Asked] = []  # until there is a token that the server takes
        self.session: int | None = None

    def ask(self, body: Json, done: Answer, failed: Answer | None = None) -> Sequence[Effect]:
        transaction, first = self._new_transaction(), not self._waiting
        self._waiting[transaction] = Asked(body, done, failed)
        message = {**body, "transaction": transaction}
        if self.session is not None:
            message.setdefault("session_id", self.session)
        if token := self._token():
            message["token"] = token
        if self._secret:
            message["apisecret"] = self._secret
        return [Send(message), *([StartTimer(Timer.ANSWER, ANSWER_S)] if first else [])]

    def tell_plugin(
        self, handle: int, body: Json, done: Answer, failed: Answer | None = None, *, jsep: Json | None = None,
    ) -> Sequence[Effect]:
        message = {"janus": "message", "handle_id": handle, "body": body}
        return self.ask(message | ({"jsep": jsep} if jsep is not None else {}), done, failed)

    def acknowledged(self, message: Mapping[str, Any]) -> Sequence[Effect]:
        """Of what has no other answer that is all (a keep-alive); of other requests the answer follows."""
        transaction = message.get("transaction")
        asked = self._waiting.get(transaction) if isinstance(transaction, str) else None
        if asked is None or asked.done is not nothing:
            return []
        return self.answered(message)[1]

    def answered(self, message: Mapping[str, Any]) -> tuple[Asked | None, Sequence[Effect]]:
        """The request that this message answers, if any; it waits no longer."""
        transaction = message.get("transaction")
        asked = self._waiting.pop(transaction, None) if isinstance(transaction, str) else None
        if asked is None:
            return None, []
        return asked, [StartTimer(Timer.ANSWER, ANSWER_S) if self._waiting else CancelTimer(Timer.ANSWER)]

    def hold(self, asked: Asked) -> None:
        """It was refused for our token: ``resume`` asks it again, unless it was all the same how it ends."""
        if asked.done is not nothing and asked.done is not asked.failed:
            self._held.append(asked)

    def resume(self) -> Sequence[Effect]:
        """There is another token."""
        held, self._held = self._held, []
        return [effect for one in held for effect in self.ask(one.body, one.done, one.failed)]

    def forget(self) -> Sequence[Effect]:
        """No answer comes any more."""
        self._waiting.clear()
        self._held.clear()
        return [CancelTimer(Timer.ANSWER)]
