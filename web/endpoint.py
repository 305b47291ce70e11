"""What endpoints are given: the services, and one transaction each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, cast

from fastapi import Depends, Request
from sqlalchemy.orm import Session

from web.compose import Services

# Who is written into timelines, until there is a login that says more.
ACTOR = "operator"


async def services_of(request: Request) -> Services:
    """What `make_app` was given. `async` because it waits for nothing: a `def` would cost a change of thread."""
    return cast("Services", request.app.state.services)


def transaction(request: Request) -> Iterator[Session]:
    """One request, one transaction: committed before the answer, rolled back on an error."""
    with cast("Services", request.app.state.services).sessions.begin() as session:
        yield session


ServicesOf = Annotated[Services, Depends(services_of)]
# With the default scope the commit would come after the answer: a failing one would be a 201.
Transaction = Annotated[Session, Depends(transaction, scope="function")]
