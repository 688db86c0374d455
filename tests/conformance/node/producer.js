// A producer that stores each batch once, whichever nodes die meanwhile. It sends one batch at a time, to any node.
import { setTimeout } from 'node:timers/promises';

import grpc from '@grpc/grpc-js';

import { api } from './stubs.js';

const PATIENCE_MS = 30_000;
// What another attempt may mend, with the same sequence. All else is for the caller.
const AGAIN = [grpc.status.UNAVAILABLE, grpc.status.DEADLINE_EXCEEDED];

export class Producer {
  constructor(addresses, topic) {
    const credentials = grpc.credentials.createInsecure();
    this.stubs = addresses.map((address) => new api.LogService(address, credentials));
    this.topic = topic;
    this.sequence = 0;
  }

  // Resolves once a majority has the batch on disk.
  async send(partition, values) {
    this.me ??= await this.call('InitProducer', {});
    this.sequence += 1;
    return this.call('Produce', {
      topic: this.topic,
      partition,
      rows: { records: values.map((value) => ({ value })) },
      producer: { producer_id: this.me.producer_id, epoch: this.me.epoch, sequence: this.sequence },
    });
  }

  async call(method, request) {
    for (const end = Date.now() + PATIENCE_MS; ; ) {
      try {
        return await new Promise((resolve, reject) => {
          const options = { deadline: Date.now() + 5_000 };
          this.stubs[0][method](request, options, (error, answer) => (error ? reject(error) : resolve(answer)));
        });
      } catch (error) {
        if (!AGAIN.includes(error.code) || Date.now() > end) throw error;
        this.stubs.push(this.stubs.shift()); // the next node
        await setTimeout(100);
      }
    }
  }

  close() {
    this.stubs.forEach((stub) => stub.close());
  }
}
