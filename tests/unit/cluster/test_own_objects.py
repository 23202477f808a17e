"""Objects that each process of an application has itself, found from the application."""

from __future__ import annotations

import json
from functools import wraps
from typing import Any

import pytest

from supervisor_sio.cluster.own_objects import OwnObjects, Place
from supervisor_sio.common.limits import OBJECTS_LOOKED_AT


class App:
    def __init__(self, name: str = "") -> None:
        self.name = name


class OtherApp(App):
    pass


class Middleware:
    def __init__(self, app: Any) -> None:
        self.app = app


def wrapped(app: Any) -> Any:
    @wraps(dict)
    def call(environ: Any, start_response: Any) -> Any:
        return app(environ, start_response)

    return call


class Proxy:
    """A proxy like werkzeug's outside of a request."""

    @property
    def __class__(self) -> Any:
        raise RuntimeError("outside of a request")

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("outside of a request")


SHAPES = [
    lambda app: app,
    lambda app: Middleware(Middleware(app)),
    lambda app: wrapped(Middleware(app)),
    lambda app: Middleware([None, Proxy(), (app,)]),
    lambda app: Middleware(app).__init__,  # type: ignore[misc]
]


@pytest.mark.parametrize("shape", SHAPES)
def test_another_process_finds_its_own(shape: Any) -> None:
    here, there = App("here"), App("there")
    place = OwnObjects(shape(here)).place_of(here)
    assert place is not None
    kind, steps = json.loads(json.dumps(place))
    assert OwnObjects(shape(there)).at(Place(kind, steps)) is there


def test_after_a_deploy_it_may_be_in_another_place() -> None:
    here, there = App("here"), App("there")
    place = OwnObjects(Middleware(here)).place_of(here)
    assert place is not None
    assert OwnObjects(there).at(place) is there
    assert OwnObjects(wrapped(Middleware(Middleware(there)))).at(place) is there
    with pytest.raises(ValueError, match=r"the application has no .*\.App"):
        OwnObjects(Middleware(OtherApp())).at(place)


def test_one_of_several_of_a_class() -> None:
    def apps() -> Any:
        return Middleware([App("first"), App("second")])

    here, there = apps(), apps()
    place = OwnObjects(here).place_of(here.app[1])
    assert place is not None and OwnObjects(there).at(place) is there.app[1]


def test_what_is_not_there_is_looked_for_once() -> None:
    root = Middleware([object() for _ in range(3 * OBJECTS_LOOKED_AT)])
    last = App()
    root.app.append(last)
    own = OwnObjects(root)
    assert own.place_of(last) is None
    root.app = last
    assert own.place_of(last) is None  # known
    for _ in range(100):
        assert own.place_of(App()) is None


def test_what_leads_back_is_not_looked_at_again() -> None:
    root = Middleware(None)
    root.app = [root, root]
    assert OwnObjects(root).place_of(App()) is None
