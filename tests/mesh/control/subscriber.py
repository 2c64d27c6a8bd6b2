"""A client of discovery that is made with the grpc library: a program, for that library starts threads."""

SUBSCRIBER = '''
"""Subscribes to both types by the grpc library, acknowledges, and prints the names that come and go."""
import queue, sys
import grpc
from netwarren.mesh.control.messages import ADDRESS, AUTHORIZATION, DISCOVERY_API, DISCOVERY_PATH

def follow(address, roots, acknowledge=True, error=""):
    request, response = (DISCOVERY_API[f"DeltaDiscovery{each}"] for each in ("Request", "Response"))
    asked = queue.SimpleQueue()
    for url in (ADDRESS, AUTHORIZATION):
        asked.put(request(type_url=url, resource_names_subscribe=["*"]))
    credentials = grpc.ssl_channel_credentials(open(roots, "rb").read())
    with grpc.secure_channel(address, credentials) as channel:
        call = channel.stream_stream(DISCOVERY_PATH, request.SerializeToString, response.FromString)
        try:
            for each in call(iter(asked.get, None)):
                for resource in each.resources:
                    print("+", resource.name, flush=True)
                for name in each.removed_resources:
                    print("-", name, flush=True)
                if acknowledge:
                    answer = request(type_url=each.type_url, response_nonce=each.nonce)
                    if error and each.resources:
                        answer.error_detail.message = error
                    asked.put(answer)
                if each.type_url == AUTHORIZATION and each.nonce == "2":
                    print("subscribed", flush=True)
        except grpc.RpcError as failure:
            print("ended", failure.code().name, flush=True)
'''
