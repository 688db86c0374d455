// A member of a consumer group: takes its share, commits what it has done, survives its node.
import { setTimeout } from 'node:timers/promises';

import grpc from '@grpc/grpc-js';

import { api } from './stubs.js';

// Gives each record to `handle`, and null now and then, until it answers false.
export async function consume(addresses, join, handle) {
  join.start = 'EDGE_EARLIEST';
  for (let number = 0; ; number += 1) {
    const stub = new api.GroupService(addresses[number % addresses.length], grpc.credentials.createInsecure());
    const stream = stub.Subscribe();
    try {
      return await session(stream, join, handle);
    } catch (error) {
      const fenced = error.metadata?.get('rakit-reason')[0] === 'MEMBER_FENCED';
      if (fenced) delete join.resume_token; // the session is over: begin another one
      else if (error.code !== grpc.status.UNAVAILABLE) throw error; // else any node resumes it
      await setTimeout(100);
    } finally {
      stream.cancel();
      stub.close();
    }
  }
}

// One stream. Resolves when `handle` had enough, the last commit was answered, and the member has left.
async function session(stream, join, handle) {
  let [underWay, enough, left] = [0, false, false];
  stream.write({ join });
  for await (const event of stream) {
    if (event.joined) {
      join.resume_token = event.joined.resume_token;
    } else if (event.records && !enough) {
      const { topic, partition, records = [] } = event.records.data;
      let offset;
      for (const record of records) {
        enough = !(await handle(record));
        offset = Number(record.offset) + 1;
        if (enough) break;
      }
      if (offset === undefined) continue;
      stream.write({ commit: { tag: 1, offsets: [{ topic, partition, offset }] } });
      underWay += 1;
    } else if (event.revoking) { // all that was handed out is done and committed
      stream.write({ revoked: { partitions: event.revoking.partitions } });
    } else if (event.committed) { // or refused, when another member has the partition by now
      underWay -= 1;
    } else if (event.heartbeat) {
      enough ||= !(await handle(null));
    }
    if (enough && underWay === 0 && !left) {
      left = true;
      stream.write({ leave: {} });
    }
  }
}
