"""What was found so far, by account."""

from collections import Counter

from msgspec import Struct, field

from schemas.reconciliation import AccountSummary, ComparedOrder, Reconciliation
from worker.core.view import not_configured
from worker.errors import CartsyncError, ConfigError


class AccountTally(Struct):
    """One account's orders, counted."""

    provider: str = ""
    categories: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)
    difference_minor: Counter[str] = field(default_factory=Counter)
    """By currency."""
    problem: str = ""


class Tally:
    """Counts alone: it does not grow with the orders."""

    def __init__(self) -> None:
        self.accounts: dict[str, AccountTally] = {}
        self.problems: list[str] = []

    def account(self, name: str, provider: str) -> AccountTally:
        """The account's counts."""
        found = self.accounts.setdefault(name, AccountTally())
        found.provider = found.provider or provider
        return found

    def add(self, compared: ComparedOrder) -> None:
        """Counts an order."""
        found = self.account(compared.subject.partition("/")[0], compared.provider)
        found.categories[compared.category] += 1
        found.verdicts[compared.verdict] += 1
        if compared.category == "differs" and compared.difference_minor is not None and compared.currency is not None:
            found.difference_minor[compared.currency] += compared.difference_minor

    def of(self, category: str) -> int:
        """Orders of a category, over all accounts."""
        return sum(each.categories[category] for each in self.accounts.values())

    @property
    def orders(self) -> int:
        """All of them."""
        return sum(each.categories.total() for each in self.accounts.values())

    def note_not_asked(self) -> int:
        """Says of each account that could not be asked about its orders why; the exit code, 0: there is none."""
        exit_code = 0
        for name, found in self.accounts.items():
            if found.problem:
                continue
            if count := found.verdicts["no_account"]:
                orders = "order was" if count == 1 else "orders were"
                found.problem = f"{not_configured(name)}: its {count} {orders} not compared"
                exit_code = exit_code or ConfigError.exit_code
            elif count := found.verdicts["not_read"]:
                found.problem = f"account {name}: {count} orders could not be read; --json says of each why"
                exit_code = exit_code or CartsyncError.exit_code
            else:
                continue
            self.problems.append(found.problem)
        return exit_code

    def summary(self, exit_code: int) -> Reconciliation:
        """As it is printed."""
        return Reconciliation(
            is_complete=not self.problems,
            orders=self.orders,
            differs=self.of("differs"),
            accounts=[_summary(name, each) for name, each in sorted(self.accounts.items())],
            problems=self.problems,
            exit_code=exit_code,
        )


def _summary(name: str, found: AccountTally) -> AccountSummary:
    counts = found.categories
    return AccountSummary(
        account=name,
        provider=found.provider,
        orders=counts.total(),
        agrees=counts["agrees"],
        differs=counts["differs"],
        not_final=counts["not_final"],
        not_compared=counts["not_compared"],
        verdicts=dict(sorted(found.verdicts.items())),
        difference_minor=dict(sorted(found.difference_minor.items())),
        problem=found.problem,
    )
