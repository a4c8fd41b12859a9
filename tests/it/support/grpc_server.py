# The service t.S of the tests: bytes in, bytes out, one method of every kind.
import sys
import threading
from concurrent import futures

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

cert, key = sys.argv[1:3]
flaky = set()
lock = threading.Lock()


def say(text):
    print(text, flush=True)


def unary(request, context):
    say("unary")
    metadata = dict(context.invocation_metadata())
    context.send_initial_metadata((("i-key", metadata.get("c-key", "")),))
    context.set_trailing_metadata((("t-key", "t-value"), ("t-data-bin", b"\x00\xff")))
    return request


def client_stream(requests, context):
    return b",".join(requests)


def server_stream(request, context):
    for n in range(int(request)):
        yield b"%d" % n


def bidi(requests, context):
    for request in requests:
        yield request


def fail(request, context):
    context.set_trailing_metadata((("grpc-status-details-bin", b"\x08\x05"),))
    codes = {code.value[0]: code for code in grpc.StatusCode}
    context.abort(codes[int(request)], "because é 100%")


def hang(request, context):
    ended = threading.Event()
    context.add_callback(ended.set)
    say("hangs")
    ended.wait()
    say("cancelled")
    return b""


def hang_stream(request, context):
    ended = threading.Event()
    context.add_callback(ended.set)
    yield b"first"
    ended.wait()
    say("stream cancelled")


def fail_first(request, context):
    with lock:
        is_first = request not in flaky
        flaky.add(request)
    say("flaky first" if is_first else "flaky again")
    if is_first:
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "once more")
    return request


handlers = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
    "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
    "Bidi": grpc.stream_stream_rpc_method_handler(bidi),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
    "Hang": grpc.unary_unary_rpc_method_handler(hang),
    "HangStream": grpc.unary_stream_rpc_method_handler(hang_stream),
    "Flaky": grpc.unary_unary_rpc_method_handler(fail_first),
}
server = grpc.server(
    futures.ThreadPoolExecutor(max_workers=16),
    options=[("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)],
)
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.S", handlers),))
servicer = health.HealthServicer()
servicer.set("", health_pb2.HealthCheckResponse.SERVING)
health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
if cert:
    with open(key, "rb") as k, open(cert, "rb") as c:
        credentials = grpc.ssl_server_credentials([(k.read(), c.read())])
    port = server.add_secure_port("127.0.0.1:0", credentials)
else:
    port = server.add_insecure_port("127.0.0.1:0")
server.start()
say("serves 127.0.0.1:%d" % port)
server.wait_for_termination()
