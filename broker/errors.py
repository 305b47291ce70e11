"""Every failure that Leeway expects, as one tree.

::

    LeewayError
    ├── SetupError            setup_failed           this machine or installation lacks something
    ├── Rejected                                     the request was understood, and refused
    │   ├── InvalidInput      invalid_input          a field is wrong: which, why, and the way out
    │   ├── NotFound          not_found
    │   ├── Conflict          conflict               somebody else was faster, or the state does not allow it
    │   ├── NoOffer           no_offer               nothing on any site fits
    │   ├── QuoteExpired      quote_expired
    │   ├── PriceUnknown      price_unknown          never taken as zero
    │   ├── RateMissing       exchange_rate_missing  never taken as one
    │   ├── GrantExhausted    grant_exhausted        the grant cannot take the hold
    │   ├── QuotaExhausted    quota_exhausted        the site's quota cannot take the hold
    │   ├── NotAuthenticated  not_authenticated
    │   └── Forbidden         forbidden
    ├── Fenced                fenced                 another worker has taken this lease over: stop
    └── SiteError             site_error             what a cloud answered, or did not
        ├── SiteRefused       site_refused           it said no, and nothing was made
        │   ├── SiteQuota     site_quota
        │   ├── SiteCapacity  site_capacity
        │   └── SiteConflict  site_conflict          the name, port or state is taken
        ├── SiteDenied        site_denied            credential refused (401, 403): says nothing about what exists
        ├── SiteBusy          site_busy              429 or 503: come back later
        └── SiteUnknown       site_unknown           no answer, or one that cannot be read: the outcome is unknown

`code` is public and never renamed; the text is for people and may change. `status` is the HTTP status of the problem
document (RFC 9457) made from it.
"""

from __future__ import annotations

from typing import ClassVar


class LeewayError(Exception):
    """Base of all. `detail` says what is wrong, `hint` the way out, `context` the same for programs."""

    code: ClassVar[str] = "error"
    title: ClassVar[str] = "Something went wrong"
    status: ClassVar[int] = 500

    def __init__(self, detail: str, *, hint: str | None = None, **context: object) -> None:
        """Keep the parts apart, so that each surface can lay them out its own way."""
        super().__init__(detail)
        self.detail = detail
        self.hint = hint
        self.context = context

    def __str__(self) -> str:
        """Detail and hint in one line."""
        if not self.hint:
            return self.detail
        return f"{self.detail} {self.hint}" if self.detail.endswith((".", "!", "?")) else f"{self.detail}. {self.hint}"


class SetupError(LeewayError):
    """This machine or installation lacks something that only its operator can mend."""

    code = "setup_failed"
    title = "This installation is not ready"
    status = 503


class Rejected(LeewayError):
    """The request was understood, and refused."""

    code = "rejected"
    title = "Refused"
    status = 422


class InvalidInput(Rejected):
    """A field of the request is wrong."""

    code = "invalid_input"
    title = "A field is not right"

    def __init__(self, field: str, reason: str, *, hint: str | None = None, **context: object) -> None:
        """Name the field as the person wrote it (`resources.memory`), the reason, and the way out."""
        super().__init__(f"{field}: {reason}", hint=hint, field=field, reason=reason, **context)
        self.field = field
        self.reason = reason


class NotFound(Rejected):
    code = "not_found"
    title = "No such thing"
    status = 404


class Conflict(Rejected):
    code = "conflict"
    title = "That cannot be done now"
    status = 409


class NoOffer(Rejected):
    code = "no_offer"
    title = "Nothing fits"


class QuoteExpired(Rejected):
    code = "quote_expired"
    title = "The quote is too old"
    status = 409


class PriceUnknown(Rejected):
    code = "price_unknown"
    title = "No price is known"


class RateMissing(Rejected):
    code = "exchange_rate_missing"
    title = "No exchange rate is known"


class GrantExhausted(Rejected):
    code = "grant_exhausted"
    title = "The grant cannot take this"
    status = 409


class QuotaExhausted(Rejected):
    code = "quota_exhausted"
    title = "The site's quota cannot take this"
    status = 409


class NotAuthenticated(Rejected):
    code = "not_authenticated"
    title = "Who are you?"
    status = 401


class Forbidden(Rejected):
    code = "forbidden"
    title = "Not allowed"
    status = 403


class Fenced(LeewayError):
    """A write said `WHERE generation = :mine` and met no row: the lease has another worker. Not a fault; stop."""

    code = "fenced"
    title = "Another worker has taken over"
    status = 409


class SiteError(LeewayError):
    """What a site answered, or did not. Adapters raise nothing else.

    Their `detail` is what was being done, a colon, and what came of it; `complete` puts the site's name before it.
    `advice` is the way out where the adapter knows no better `hint`.
    """

    code = "site_error"
    title = "A site answered with an error"
    status = 502
    advice: ClassVar[str] = "`leeway site check` tries the site step by step."

    def __init__(
        self, detail: str, *, hint: str | None = None, http_status: int | None = None, **context: object
    ) -> None:
        """`http_status` is what the site sent, None where no answer could be read."""
        super().__init__(detail, hint=hint, http_status=http_status, **context)
        self.http_status = http_status

    def complete(self, site: str, *, operation: str) -> None:
        """Say at which site it was, and the way out. `operation` is the adapter's method, for programs."""
        if "site" in self.context:
            return
        self.context |= {"site": site, "operation": operation}
        self.detail = f"{site}: {self.detail}"
        self.hint = self.hint or self.advice


class SiteRefused(SiteError):
    """The site said no with an answer that the adapter knows to mean "nothing was made"."""

    code = "site_refused"
    title = "The site refused"
    advice = "Change what the site names, or choose another offer."


class SiteQuota(SiteRefused):
    code = "site_quota"
    title = "The site's quota is used up"
    advice = "Delete what the project there no longer needs, or ask the site for more quota."


class SiteCapacity(SiteRefused):
    code = "site_capacity"
    title = "The site has no room"
    advice = "Choose another offer or another site, or try again later."


class SiteConflict(SiteRefused):
    code = "site_conflict"
    title = "Taken at the site"
    advice = "Look at what has it there, or try again when the site is done with it."


class SiteDenied(SiteError):
    """Credential refused (401, 403). Nothing was made, and nothing is known of what exists."""

    code = "site_denied"
    title = "The site does not accept our credential"
    advice = "`leeway site check` tells what the credential lacks."


class SiteBusy(SiteError):
    """429 or 503. Nothing was made; `retry_after` is the site's wish in seconds, None where it gave none."""

    code = "site_busy"
    title = "The site is busy"
    advice = "Nothing was made; Leeway asks again by itself."

    def __init__(self, detail: str, *, retry_after: float | None = None, http_status: int | None = None) -> None:
        """`retry_after` in seconds."""
        super().__init__(detail, http_status=http_status, retry_after=retry_after)
        self.retry_after = retry_after


class SiteUnknown(SiteError):
    """No answer in time, a cut connection, a 5xx, or an answer that is not the API's. The outcome is unknown."""

    code = "site_unknown"
    title = "The site did not answer clearly"
    advice = "Leeway looks again before it does anything; if this goes on, `leeway site check` tells more."


def tree() -> list[type[LeewayError]]:
    """Every class of the tree, parents first: for the documentation's test and the problem pages."""
    found: list[type[LeewayError]] = []
    todo: list[type[LeewayError]] = [LeewayError]
    while todo:
        kind = todo.pop(0)
        found.append(kind)
        todo.extend(kind.__subclasses__())
    return found
