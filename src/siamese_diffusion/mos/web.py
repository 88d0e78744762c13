"""The raters' web application: one image a screen, by personal link, no going back.

Knows the blinded study and its store, never the key. Pages are rendered here and need no script;
the one script adds keys. Nothing is loaded from anywhere else, which the content security policy
enforces. Imported only when a study is served (extra `web`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Final

from fastapi import FastAPI, Form
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from siamese_diffusion.mos.store import Outcome, Rating, Store
from siamese_diffusion.mos.study import RaterPlan, Study

CONFIDENCE: Final = range(11)
VOTES: Final = {"real": True, "synthetic": False}
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; style-src 'self'; "
    "script-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",  # the address holds the token
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex, nofollow",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_MOST_BYTES: Final = 4096  # of a form
_MOST_SECONDS: Final = 7 * 24 * 3600.0  # of one screen, before its start time is not believed
_STATIC: Final = {"rate.css": "text/css", "rate.js": "text/javascript"}
_MEDIA: Final = {".png": "image/png", ".jpg": "image/jpeg"}
_NOTICES: Final = {
    "kept": "The image before this one had been rated already. The first answer counts.",
    "repeated": "Your answer to the image before was already saved.",
    "early": "That image is not reached yet. Please go on here.",
}


def create_app(study: Study, store: Store, *, clock: Callable[[], float] = time.time) -> FastAPI:
    """The application that serves one study.

    Args:
        study: What is shown.
        store: Where answers go.
        clock: Seconds since the epoch.
    """
    # The pages of FastAPI that document an API load scripts from elsewhere, and list addresses.
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(_Guard)
    pages = _Pages(study)
    environment = pages.environment
    assets = {
        name: environment.loader.get_source(environment, name)[0].encode()  # type: ignore[union-attr]
        for name in _STATIC
    }

    def rater(token: str) -> RaterPlan:
        plan = study.rater_of(token)
        if plan is None:
            raise HTTPException(404)
        return plan

    def current(plan: RaterPlan) -> int | None:
        """Position of the screen a rater is at; None before the start."""
        return store.count(plan.rater) if store.has_consented(plan.rater) else None

    @app.exception_handler(HTTPException)
    def refused(request: object, error: HTTPException) -> Response:
        return pages.refusal(error.status_code)

    @app.exception_handler(RequestValidationError)
    def malformed(request: object, error: RequestValidationError) -> Response:
        return pages.refusal(400)

    @app.get("/favicon.ico")
    def icon() -> Response:
        return Response(status_code=204)  # browsers ask for it

    @app.get("/static/{name}")
    def static(name: str) -> Response:
        if name not in _STATIC:
            raise HTTPException(404)
        return Response(assets[name], media_type=_STATIC[name])

    @app.get("/r/{token}")
    def screen(token: str, notice: str = "") -> Response:
        plan = rater(token)
        position = current(plan)
        if position is None:
            return pages.welcome(plan, token)
        if position >= len(plan.order):
            return pages.thanks(plan)
        return pages.question(plan, token, position, clock(), notice=_NOTICES.get(notice))

    @app.post("/r/{token}/start")
    def start(token: str, consent: Annotated[str, Form()] = "") -> Response:
        plan = rater(token)
        if consent != "yes":
            return pages.welcome(plan, token, error="Please tick the box to take part.")
        store.consent(plan.rater)
        return RedirectResponse(f"/r/{token}", status_code=303)

    @app.get("/r/{token}/image/{position}")
    def image(token: str, position: str) -> Response:
        plan = rater(token)
        here = current(plan)
        # Only the image of the screen the rater is at: no looking ahead, back or elsewhere.
        if here is None or here >= len(plan.order) or position != str(here + 1):
            raise HTTPException(404)
        path = study.image(plan.order[here])
        return Response(path.read_bytes(), media_type=_MEDIA[study.record.suffix])

    @app.post("/r/{token}/rate")
    def rate(
        token: str,
        position: Annotated[str, Form()] = "",
        shown: Annotated[str, Form()] = "",
        vote: Annotated[str, Form()] = "",
        confidence: Annotated[str, Form()] = "",
    ) -> Response:
        plan = rater(token)
        here = current(plan)
        if here is None:
            return RedirectResponse(f"/r/{token}", status_code=303)
        place = _whole(position, range(1, len(plan.order) + 1))
        seconds = _elapsed(shown, clock())
        if place is None or seconds is None:
            raise HTTPException(400)  # the page never sends this
        sure = _whole(confidence, CONFIDENCE)
        if vote not in VOTES or sure is None:
            if place != here + 1:
                return RedirectResponse(f"/r/{token}", status_code=303)
            error = "Please choose real or synthetic, and how sure you are, from 0 to 10."
            return pages.question(
                plan, token, here, float(shown), error=error, vote=vote, confidence=sure
            )
        outcome: Outcome = store.add(
            Rating(plan.rater, place - 1, plan.order[place - 1], VOTES[vote], sure, seconds)
        )
        query = "" if outcome == "recorded" else f"?notice={outcome}"
        return RedirectResponse(f"/r/{token}{query}", status_code=303)

    return app


class _Pages:
    """HTML of every page of a study."""

    def __init__(self, study: Study) -> None:
        self.environment = Environment(
            loader=PackageLoader("siamese_diffusion.mos"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._study = study

    def welcome(self, plan: RaterPlan, token: str, *, error: str | None = None) -> Response:
        return self._render(
            "welcome.html.j2",
            400 if error else 200,
            token=token,
            total=len(plan.order),
            error=error,
        )

    def question(
        self,
        plan: RaterPlan,
        token: str,
        position: int,
        shown: float,
        *,
        notice: str | None = None,
        error: str | None = None,
        vote: str = "",
        confidence: int | None = None,
    ) -> Response:
        return self._render(
            "rate.html.j2",
            400 if error else 200,
            token=token,
            number=position + 1,
            done=position,
            total=len(plan.order),
            size=self._study.record.size,
            shown=f"{shown:.3f}",
            notice=notice,
            error=error,
            vote=vote,
            confidence=confidence,
            levels=CONFIDENCE,
        )

    def thanks(self, plan: RaterPlan) -> Response:
        return self._render("thanks.html.j2", 200, total=len(plan.order))

    def refusal(self, status: int) -> Response:
        return self._render("refusal.html.j2", status, absent=status == 404)

    def _render(self, name: str, status: int, **values: object) -> Response:
        template = self.environment.get_template(name)
        return HTMLResponse(template.render(title=self._study.record.title, **values), status)


class _Guard:
    """Security headers on every response, and no request body beyond a small form."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    *((key.lower().encode(), value.encode()) for key, value in HEADERS.items()),
                ]
            await send(message)

        if scope["method"] == "POST" and not _is_small(dict(scope["headers"])):
            await Response("The form is too large.", 413)(scope, receive, guarded)
            return
        await self._app(scope, receive, guarded)


def _is_small(headers: dict[bytes, bytes]) -> bool:
    length = headers.get(b"content-length", b"")
    return length.isdigit() and int(length) <= _MOST_BYTES


def _whole(text: str, allowed: range) -> int | None:
    """A whole number in plain ASCII digits, or None if it is not an allowed one."""
    if not (text.isascii() and text.isdigit() and len(text) <= 6):
        return None
    return int(text) if int(text) in allowed else None


def _elapsed(shown: str, now: float) -> float | None:
    """Seconds since the page was made; None if it cannot have been made then."""
    try:
        seconds = now - float(shown)
    except ValueError:
        return None
    # Also refuses nan and infinity, for which no comparison holds.
    return round(max(seconds, 0.0), 3) if -60 <= seconds <= _MOST_SECONDS else None
