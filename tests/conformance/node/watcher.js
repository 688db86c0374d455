// A watch of the cluster: which node leads each partition, and what changes.
import { setTimeout } from 'node:timers/promises';

import grpc from '@grpc/grpc-js';

import { api } from './stubs.js';

// Yields what there is of some topics, and then what changes, for ever. When its node goes away the next one begins anew,
// with a snapshot and version 1.
export async function* watch(addresses, topics) {
  for (let number = 0; ; number += 1) {
    const stub = new api.ClusterService(addresses[number % addresses.length], grpc.credentials.createInsecure());
    const stream = stub.WatchCluster({ topics });
    try {
      yield* stream;
      return;
    } catch (error) {
      if (error.code !== grpc.status.UNAVAILABLE) throw error;
      await setTimeout(100); // then the next node
    } finally {
      stream.cancel();
      stub.close();
    }
  }
}
