# Cases of a client of t.S, named by the arguments; the first that fails ends it with a traceback.
import sys
import threading

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

addr, root = sys.argv[1:3]
WAIT = 30
options = [
    ("grpc.max_receive_message_length", -1),
    # What the test asks for once is asked for once.
    ("grpc.enable_retries", 0),
]
if root:
    with open(root, "rb") as file:
        credentials = grpc.ssl_channel_credentials(file.read())
    channel = grpc.secure_channel("localhost:" + addr.rsplit(":", 1)[1], credentials, options)
else:
    channel = grpc.insecure_channel(addr, options)

unary = channel.unary_unary("/t.S/Unary")
client_stream = channel.stream_unary("/t.S/ClientStream")
server_stream = channel.unary_stream("/t.S/ServerStream")
bidi = channel.stream_stream("/t.S/Bidi")
fail = channel.unary_unary("/t.S/Fail")
hang = channel.unary_unary("/t.S/Hang")
hang_stream = channel.unary_stream("/t.S/HangStream")
flaky = channel.unary_unary("/t.S/Flaky")


def same(got, wanted):
    assert got == wanted, (got, wanted)


def error(call, *args, **kwargs):
    kwargs.setdefault("timeout", WAIT)
    try:
        answer = call(*args, **kwargs)
        if hasattr(answer, "__next__"):
            list(answer)
    except grpc.RpcError as failed:
        return failed
    raise AssertionError("it did not fail")


def case_unary():
    for n in range(3):
        answer, call = unary.with_call(b"hello", timeout=WAIT, metadata=(("c-key", "c %d" % n),))
        same(answer, b"hello")
        same(dict(call.initial_metadata()).get("i-key"), "c %d" % n)
        trailing = dict(call.trailing_metadata())
        same(trailing["t-key"], "t-value")
        same(trailing["t-data-bin"], b"\x00\xff")
        same(call.code(), grpc.StatusCode.OK)
    same(unary(b"", timeout=WAIT), b"")


def case_streams():
    same(client_stream(iter([b"%d" % n for n in range(100)]), timeout=WAIT).count(b","), 99)
    same(client_stream(iter([]), timeout=WAIT), b"")
    same(list(server_stream(b"100", timeout=WAIT)), [b"%d" % n for n in range(100)])
    same(list(server_stream(b"0", timeout=WAIT)), [])
    # Each message is sent when the answer to the one before has come.
    turn = threading.Semaphore(1)
    sent = []

    def messages():
        for n in range(50):
            assert turn.acquire(timeout=WAIT)
            sent.append(b"m%d" % n)
            yield sent[-1]

    got = []
    for answer in bidi(messages(), timeout=WAIT):
        same(answer, sent[len(got)])
        got.append(answer)
        turn.release()
    same(len(got), 50)


def case_large():
    big = bytes(range(256)) * 16384
    same(len(big), 4 << 20)
    assert unary(big, timeout=WAIT) == big
    same(client_stream(iter([big, big]), timeout=WAIT), big + b"," + big)
    for answer in bidi(iter([big, big]), timeout=WAIT):
        assert answer == big


def case_statuses():
    for code in range(1, 17):
        failed = error(fail, b"%d" % code)
        same(failed.code().value[0], code)
        same(failed.details(), "because é 100%")
        same(dict(failed.trailing_metadata())["grpc-status-details-bin"], b"\x08\x05")
    same(error(channel.unary_unary("/t.S/None"), b"").code(), grpc.StatusCode.UNIMPLEMENTED)


def case_client_deadline():
    same(error(hang, b"", timeout=0.5).code(), grpc.StatusCode.DEADLINE_EXCEEDED)


def case_cancel():
    call = hang_stream(b"", timeout=WAIT)
    same(next(call), b"first")
    call.cancel()
    same(error(lambda **_: next(call)).code(), grpc.StatusCode.CANCELLED)
    same(unary(b"on", timeout=WAIT), b"on")


def case_hundred():
    calls = [unary.future(b"n%d" % n, timeout=WAIT) for n in range(100)]
    for n, call in enumerate(calls):
        same(call.result(timeout=WAIT), b"n%d" % n)


def case_health():
    stub = health_pb2_grpc.HealthStub(channel)
    same(stub.Check(health_pb2.HealthCheckRequest(), timeout=WAIT).status, 1)


def refused(code, details):
    failed = error(unary, b"")
    same(failed.code(), code)
    assert details in failed.details(), failed.details()


def case_no_endpoint():
    refused(grpc.StatusCode.UNAVAILABLE, "isobar: ")


def case_no_route():
    refused(grpc.StatusCode.UNIMPLEMENTED, "isobar: no_route")


def case_rate_limit():
    refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "isobar: rate_limit")


def case_route_deadline():
    for call in (hang, hang_stream):
        failed = error(call, b"")
        same(failed.code(), grpc.StatusCode.DEADLINE_EXCEEDED)


def case_flaky():
    for key in (b"a", b"b"):
        same(flaky(key, timeout=WAIT), key)


for name in sys.argv[3:]:
    globals()["case_" + name]()
    print("ok", name, flush=True)
