"""AtaraPay's sandbox: four words in, notifications out.

    POST {any path}/callback/order                                  a word, as a form
    POST /checkout {"number", "product_id", "amount_minor"}         the buyer has paid into escrow
    POST /acts {"number", "act"}                                    buyer or seller do something there (`escrow.Act`)

Notifications go to the seller's one address, as JSON, form and multipart in turn (AtaraPay's documentation prints JSON,
its plugin reads multipart). Unverified: that they do not come again when nobody takes them; nothing is documented.
"""

from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import parse_qsl, urlencode

import msgspec

from worker.errors import UsageError
from worker.sandbox.atarapay import escrow
from worker.sandbox.atarapay.escrow import Act, Escrow, Habits, Notification
from worker.sandbox.attempts import JSON, Answer, Attempt, Call
from worker.sandbox.faults import FaultPlan
from worker.sandbox.pushes import Push
from worker.sandbox.server import Key, Sandbox

SELLER = "seller"
"""What faults and page call the one merchant: the public key is one half of a secret."""
_PATH = "/callback/order"
_BOUNDARY = "sandbox-atarapay-notification"


class Checkout(msgspec.Struct, forbid_unknown_fields=True):
    """An order as the buyer has paid for it."""

    number: str
    product_id: str
    amount_minor: int


class Happening(msgspec.Struct, forbid_unknown_fields=True):
    """What is done at AtaraPay."""

    number: str
    act: Act


class AtaraPaySandbox(Sandbox):
    """`callback_url`: where notifications go; empty: nowhere."""

    name = "AtaraPay"
    order_heads = ("order", "product id", "currency", "amount", "state", "words taken")

    def __init__(
        self,
        public_key: str,
        private_key: str,
        faults: FaultPlan | None = None,
        seed: int = 0,
        *,
        callback_url: str = "",
        habits: Habits | None = None,
        **options: Any,
    ) -> None:
        super().__init__(faults, seed, **options)
        self._side = escrow.Sandbox(public_key, private_key, habits)
        self.callback_url = callback_url
        self._posted = 0
        self.escrows = self._side.escrows
        self.denied = self.refusal(401, escrow.NO_TOKEN)

    def is_asked(self, method: str, path: str) -> bool:
        return method == "POST" and path.endswith(_PATH)

    def about(self, call: Call) -> Key | None:
        number = _form(call).get("order", "")
        return (SELLER, number) if number else None

    def take(self, attempt: Attempt, key: Key | None, call: Call) -> Answer:
        attempt.what = _form(call).get("status", "")
        order = None if key is None else self.escrows.get(key[1])
        words = 0 if order is None else len(order.words)
        answer = self._side.call(call.body)
        if order is not None and len(order.words) > words:
            attempt.applied_at = self._wall()
        self._tell()
        return Answer(answer.status, answer.body)

    def refusal(self, status: int, text: str) -> Answer:
        return Answer(status, msgspec.json.encode({"status": "error", "message": text}))

    def keys(self) -> Iterable[Key]:
        return ((SELLER, number) for number in reversed(self.escrows))

    def row(self, key: Key) -> Sequence[object]:
        of = self.escrows[key[1]]
        return of.number, of.product_id, of.currency, of.amount_minor, of.state, ", ".join(of.words)

    def shown(self, key: Key) -> dict[str, Any] | None:
        found = self.escrows.get(key[1]) if key[0] == SELLER else None
        return None if found is None else msgspec.to_builtins(found)

    def open(self, number: str, product_id: str, amount_minor: int) -> Escrow:
        """The buyer has paid."""
        return self._side.open(number, product_id, amount_minor)

    def do(self, number: str, act: Act) -> bool:
        """Something is done at AtaraPay itself; whether it can be done now."""
        is_done = self._side.act(number, act)
        self._tell()
        return is_done

    def checkout(self, body: bytes) -> None:
        told = msgspec.json.decode(body, type=Checkout)
        self.open(told.number, told.product_id, told.amount_minor)

    def act(self, body: bytes) -> None:
        told = msgspec.json.decode(body, type=Happening)
        if told.number not in self.escrows:
            raise UsageError(f"no order {told.number} was paid for here")
        if not self.do(told.number, told.act):
            raise UsageError(f"{told.act} cannot be done now: the order is {self.escrows[told.number].state}")

    def _tell(self) -> None:
        untold, self._side.untold = self._side.untold, []
        for each in untold:
            content_type, body = _written(each, self._posted)
            self._posted += 1
            push = Push(
                merchant=SELLER,
                order_ref=str(each.data["id"]),
                what=f"{each.status}: {each.message}",
                url=self.callback_url,
                content_type=content_type,
                body=body,
            )
            self.pushes.post(push)


def _form(call: Call) -> dict[str, str]:
    return dict(parse_qsl(call.body.decode("utf-8", "replace"), keep_blank_values=True))


def _written(each: Notification, number: int) -> tuple[str, bytes]:
    """Content type and body."""
    if number % 3 == 0:
        return JSON, msgspec.json.encode(each)
    data = msgspec.json.encode(each.data).decode()
    form = {"status": each.status, "message": each.message, "data": data, "token": each.token}
    if number % 3 == 1:
        return "application/x-www-form-urlencoded", urlencode(form).encode()
    parts = [
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'
        for name, text in form.items()
    ]
    return f"multipart/form-data; boundary={_BOUNDARY}", "".join([*parts, f"--{_BOUNDARY}--\r\n"]).encode()
