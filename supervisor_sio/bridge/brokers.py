"""How messages go through Redis: by pub/sub, sharded in a cluster.

Not by Streams: they cost Redis twice the CPU per message, and memory; Redis refuses them when it is
full or a replica; and those written just before it is killed are lost, too. So hosts number what
they send, and ask for what they lack; see :mod:`.stream`.
"""

from __future__ import annotations

from typing import Any, Optional, Sequence

from ..common.redis_client import ClusterAddress, make_client


class Broker:
    """Two connections, one to publish and one to subscribe, made when they are needed.

    :raises QueueError: see :func:`make_client`.
    """

    def __init__(self, url: str, channel: str) -> None:
        self._channel = channel
        self._client = make_client(url)
        #: The client of a cluster, once its nodes are known.
        self._cluster: Optional[Any] = None
        #: Whether Redis has answered since the last :meth:`renew`.
        self._answers = False

    @property
    def confirmations(self) -> int:
        """The number of confirmations after which a subscription is complete."""
        return 2 if isinstance(self._client, ClusterAddress) else 1

    def connect(self) -> None:
        """Connect before :meth:`publish`, and log in: if this fails, nothing has been sent.

        :raises redis.RedisError: when Redis cannot be reached, or refuses the login.
        """
        if not self._answers:
            # Without PING: a Redis that cannot save its data refuses that, and not PUBLISH.
            with self._node()[0].client():
                self._answers = True

    def publish(self, messages: Sequence[bytes]) -> list[Any]:
        """Publish in this order, in one round trip. Return Redis's result for each message.

        An exception among the results is a refusal: that message was not published. After a raised
        exception it is not known which messages were.
        """
        client, command = self._node()
        pipeline = client.pipeline(transaction=False)
        for message in messages:
            pipeline.execute_command(command, self._channel, message)
        results: list[Any] = pipeline.execute(raise_on_error=False)
        return results

    def subscribe(self) -> Any:
        """A subscription of redis-py; nothing is confirmed yet."""
        client, command = self._node()
        subscription = client.pubsub()
        if command == "SPUBLISH":
            subscription.ssubscribe(self._channel)
        # Also in a cluster: publishers without shards publish to all nodes.
        subscription.subscribe(self._channel)
        return subscription

    def renew(self) -> None:
        """Begin with a new connection after an error, and look up the nodes anew.

        A connection in use is left to its user to close.
        """
        self._answers = False
        if isinstance(self._client, ClusterAddress):
            self._cluster = None
        else:
            self._client.connection_pool.disconnect(inuse_connections=False)

    def _node(self) -> tuple[Any, str]:
        """A client of the node that has the channel, and the command to publish there."""
        if not isinstance(self._client, ClusterAddress):
            return self._client, "PUBLISH"
        cluster = self._cluster
        if cluster is None:
            cluster = self._cluster = self._client.connect()
        node = cluster.get_node_from_key(self._channel)
        return cluster.get_redis_connection(node), "SPUBLISH"
