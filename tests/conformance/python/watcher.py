"""A watch of the cluster: which node leads each partition, and what changes."""

import time
from collections.abc import Iterator, Sequence

import grpc

from rakit.api.v1.cluster_service_pb2 import WatchClusterRequest, WatchClusterResponse
from rakit.api.v1.cluster_service_pb2_grpc import ClusterServiceStub


def watch(addresses: Sequence[str], topics: Sequence[str]) -> Iterator[WatchClusterResponse]:
    """Yields what there is of some topics, and then what changes, for ever.

    When its node goes away the next one begins anew, with a snapshot and version 1.
    """
    stubs = [ClusterServiceStub(grpc.insecure_channel(each)) for each in addresses]
    while True:
        try:
            yield from stubs[0].WatchCluster(WatchClusterRequest(topics=topics))
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            stubs.append(stubs.pop(0))  # the next node
            time.sleep(0.1)
        else:
            return
