"""A worker is killed while a client comes back to it: what its journal says then."""

from __future__ import annotations

from typing import Any, List

from supervisor_sio.cluster.lost import decode

from .test_recovery import Client, Cluster
from .test_recovery import run as run  # noqa: F401
from .test_recovery import run_dir as run_dir  # noqa: F401


def test_what_was_missed_is_not_written_twice(run: Any) -> None:  # noqa: F811
    """Until all of it is written anew, nobody else may send it from there."""

    async def scenario(cluster: Cluster) -> None:
        dead, heir = await cluster.start(2)
        client = Client()
        await dead.connect(client)
        await dead.emit()
        client.take()
        dead.disconnect(client.eio_sid)
        for _ in range(3):
            await dead.emit()
        await dead.kill()
        await cluster.inherit(dead, heir)
        said: List[str] = []
        send_alone = heir.manager._send_alone

        def killed_here(*args: Any) -> None:
            state = dict(heir.reader().states())[client.pid]
            said.append(dict(decode(state).pairs())["not"])
            send_alone(*args)

        heir.manager._send_alone = killed_here
        await heir.connect(client)
        assert client.recovered, client.reason
        assert len(said) == 3 and all(said)
        state = dict(heir.reader().states())[client.pid]
        assert dict(decode(state).pairs())["not"] == ""
        assert client.events[dead.tag] == [1, 2, 3, 4]

    run(scenario)
