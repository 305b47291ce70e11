"""What each error code means and what to do about it: the text of /problems/<code>."""

from __future__ import annotations

from collections.abc import Mapping

ADVICE: Mapping[str, str] = {
    "error": "Something failed that has no code of its own. The detail says what; if it stays, tell the operator.",
    "setup_failed": "This installation lacks something that only its operator can mend. Run `leeway doctor` on its "
    "machine: it says what is missing and how to add it.",
    "rejected": "The request was understood and refused. The detail says why.",
    "invalid_input": "A field of the request is wrong. `field` names it as you wrote it, `reason` says why, `hint` "
    "what to write instead; `errors` lists every fault that was found. Nothing was changed.",
    "not_found": "Nothing has this name or id. Names are exact; an id may be shortened to eight digits or more. The "
    "hint names what is near, or how to list what there is.",
    "conflict": "The state does not allow it, or somebody else was faster. Look at it again; then repeat, or choose "
    "another name or key. Nothing was changed.",
    "no_offer": "No offer of any site fits the workload. `leeway explain` says for each site what is missing and what "
    "to change: fewer cores, another image, a longer budget.",
    "quote_expired": "Prices are promised for a limited time. Ask for a new quote; it may rank the sites differently.",
    "price_unknown": "No rate card has a price for this, and an unknown price is never taken as zero. Import a rate "
    "card of the provider that is valid at this time.",
    "exchange_rate_missing": "Two currencies meet, and no dated rate between them is known. A rate is never taken as "
    "one: use a grant in the currency of the offer.",
    "grant_exhausted": "The project's grants cannot take this amount for this time. `leeway spend` shows what is free, "
    "what is held by running orders, and when each grant ends. Ask for less, stop something, or ask for more money.",
    "quota_exhausted": "The site allows this project no more of it, counting what other orders have set aside. Ask for "
    "less, choose another offer of the quote, or wait until machines end.",
    "not_authenticated": "Each request shows the token of this server. Commands of the account that runs it find the "
    "token by themselves; browsers follow the link that `leeway serve` printed.",
    "forbidden": "You are known, but this is not yours to do. The detail says who may.",
    "fenced": "Another worker has taken over. Nothing is wrong and nothing is to be done.",
    "site_error": "A cloud answered with an error. `leeway show` has its words; Leeway tries again where that helps.",
    "site_refused": "A cloud said no, and made nothing. Leeway tries the next offer of the quote if there is one "
    "within what was approved.",
    "site_quota": "The cloud's own quota is used up, perhaps by others. Raise it there, or choose another site.",
    "site_capacity": "The cloud has no room for a machine of this kind now. Choose another site, or try later.",
    "site_conflict": "A name, port or address is taken at the cloud. `leeway show` says which.",
    "site_denied": "The cloud does not accept the credential. Run `leeway site check`: it says which step fails. "
    "Machines that run there go on, and nothing is taken as gone.",
    "site_busy": "The cloud asks to come back later, and Leeway does. Nothing is to be done.",
    "site_unknown": "The cloud gave no clear answer, so it is not known whether anything was made. Leeway looks until "
    "it knows; nothing is ordered twice.",
    "method_not_allowed": "The address exists, but takes other methods. The header Allow names them.",
    "too_large": "The request is larger than this server takes. Send less at once, or several requests.",
    "wrong_host": "The request came under a name that is not this server's. Use the address that `leeway serve` "
    "printed. If you did, another site tried to reach this server through your browser, and was stopped.",
    "busy": "Others hold what the request needs. Nothing was changed: repeat it after the seconds of Retry-After.",
    "database_unavailable": "The database does not answer. Repeat after the seconds of Retry-After, with the same "
    "Idempotency-Key where there was one; if it stays, run `leeway doctor`.",
    "internal": "A fault of Leeway itself. Tell the operator the request's id (X-Request-Id): the log has the rest.",
}
