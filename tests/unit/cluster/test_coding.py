from __future__ import annotations

from typing import Any, Callable, Optional

import zmq
from hypothesis import given
from hypothesis import strategies as st
from socketio import packet as sio_packet

from supervisor_sio import ZmqManager
from supervisor_sio.common.rundir import OwnedRunDir
from supervisor_sio.relay.message import RelayMessage, topic_for_all
from unit.cluster.others import SpacedJson, next_message
from unit.polling import make_server

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)

ENCODER = make_server(client_manager=ZmqManager("zmq+ipc:///nowhere"))


@given(
    st.lists(json_values, max_size=3),
    st.sampled_from(["/", "/chat"]),
    st.none() | st.integers(1, 2**53 - 1),
)
def test_a_packet_is_read_as_it_was_written(
    data: list[Any], namespace: str, ack_id: Optional[int]
) -> None:
    manager = ENCODER.manager
    packets = manager._encode(sio_packet.EVENT, namespace, ["event", *data], ack_id)
    assert {type(packet) for packet in packets} <= {str, bytes}
    fields = {"method": "emit", "packet": manager._packet_format()}
    message = RelayMessage.unpack(RelayMessage("a", 1, fields, packets).pack())
    assert manager._decode(message) == ["event", *data]
    packet = sio_packet.Packet(encoded_packet=message.packets[0])
    assert (packet.id, packet.namespace or "/") == (ack_id, namespace)


def test_the_json_module_of_a_write_only_manager(
    run_dir: OwnedRunDir, subscribe: Callable[[bytes], zmq.Socket[bytes]]
) -> None:
    ear = subscribe(topic_for_all("other"))
    url = f"zmq+ipc://{run_dir.path}"
    manager = ZmqManager(url, channel="other", write_only=True, json=SpacedJson)
    manager.emit("news", 1)
    assert next_message(ear).packets == ['2["news", 1]']
    manager.close()
