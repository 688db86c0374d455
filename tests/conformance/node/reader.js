// A reader that goes on where it was when its node goes away.
import { setTimeout } from 'node:timers/promises';

import grpc from '@grpc/grpc-js';

import { api } from './stubs.js';

// Yields the records from a position, to the log's end or for ever. Afterwards `start.offset` is where to go on.
export async function* read(addresses, start, follow = false) {
  for (let number = 0; ; number += 1) {
    const stub = new api.LogService(addresses[number % addresses.length], grpc.credentials.createInsecure());
    const stream = stub.Read({ positions: [start], follow });
    try {
      for await (const answer of stream) {
        for (const record of answer.data?.records ?? []) {
          goOn(start, Number(record.offset) + 1);
          yield record;
        }
        if (answer.end) goOn(start, Number(answer.end.next_offset));
        // A heartbeat says that the stream is alive.
      }
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

// The offset stands in place of a time or an edge.
function goOn(start, offset) {
  delete start.time_ms;
  delete start.edge;
  start.offset = offset;
}
