// The Node program: does the steps that it reads on stdin, and says what came of each.
import { readFileSync } from 'node:fs';

import grpc from '@grpc/grpc-js';

import { consume } from './consumer.js';
import { describe } from './errors.js';
import { Producer } from './producer.js';
import { read } from './reader.js';
import { api } from './stubs.js';
import { watch } from './watcher.js';

const TIMEOUT_MS = 20_000;
const orders = JSON.parse(readFileSync(0, 'utf8'));
const stubs = new Map();
let me = {};

function stub(service, step = {}) {
  const address = step.at ?? orders.addresses[0];
  const key = `${service} ${address}`;
  if (!stubs.has(key)) stubs.set(key, new api[service](address, grpc.credentials.createInsecure()));
  return stubs.get(key);
}

function call(on, method, request) {
  return new Promise((resolve, reject) => {
    const options = { deadline: Date.now() + TIMEOUT_MS };
    on[method](request, options, (error, answer) => (error ? reject(error) : resolve(answer)));
  });
}

const raw = (text) => (text === undefined ? undefined : Buffer.from(text));
const text = (bytes) => (bytes === undefined || bytes === null ? undefined : bytes.toString());
const progress = (value) => process.stderr.write(`progress ${value}\n`);
const stamp = (sequence) => ({ producer_id: me.producer_id, epoch: me.epoch, sequence });

function rows(written) {
  const headers = (row) => (row.headers ?? []).map(([name, value]) => ({ name, value: raw(value) }));
  return { records: written.map((row) => ({ key: raw(row.key), value: raw(row.value), headers: headers(row) })) };
}

function produced(answer) {
  return {
    partition: answer.partition ?? 0,
    base_offset: Number(answer.base_offset ?? 0),
    end_offset: Number(answer.end_offset),
    term: Number(answer.term),
    index: Number(answer.index),
    replicas: answer.replicas,
    fsynced: answer.fsynced ?? false,
    duplicate: answer.duplicate ?? false,
  };
}

function fields(record) {
  const headers = (record.headers ?? []).map((header) => [header.name, text(header.value)]);
  return { offset: Number(record.offset ?? 0), key: text(record.key), value: text(record.value), headers };
}

function told(topic) {
  const retention = topic.config?.retention_ms;
  return {
    name: topic.name,
    topic_id: Number(topic.topic_id),
    partition_count: topic.partitions.length,
    replication_factor: topic.replication_factor,
    retention_ms: retention === undefined ? undefined : Number(retention),
  };
}

// Who leads, as far as the message says so.
function leaders(change) {
  const whole = (change.topics ?? []).flatMap((topic) => topic.partitions.map((each) => [topic.name, each]));
  const some = (change.partitions ?? []).map((each) => [each.topic, each.partition]);
  return [...whole, ...some]
    .filter(([, each]) => each.leader_address)
    .map(([topic, each]) => `${topic} ${each.partition ?? 0} ${each.leader_address}`);
}

function position(step) {
  const { partition, offset, time_ms } = step;
  const start = { topic: orders.topic, partition };
  if (offset !== undefined) start.offset = offset;
  if (time_ms !== undefined) start.time_ms = time_ms;
  return start;
}

function listed(seen, start) {
  return { rows: seen, values: seen.map((each) => each.value), next_offset: start.offset };
}

const operations = {
  async init_producer(step) {
    me = await call(stub('LogService', step), 'InitProducer', { producer_name: step.name });
    return { producer_id: Number(me.producer_id), epoch: me.epoch };
  },

  async produce(step) {
    const request = { topic: orders.topic, rows: rows(step.rows), leader_only: step.leader_only };
    if (step.key === undefined) request.partition = step.partition;
    else request.routing_key = raw(step.key);
    if (step.sequence !== undefined) request.producer = stamp(step.sequence);
    if (step.expected_offset !== undefined) request.expected_offset = step.expected_offset;
    return produced(await call(stub('LogService', step), 'Produce', request));
  },

  async produce_stream(step) {
    const stream = stub('LogService', step).ProduceStream({ deadline: Date.now() + TIMEOUT_MS });
    step.batches.forEach((batch, number) => {
      const producer = { ...stamp(number + 1), previous_sequence: number };
      const produce = { topic: orders.topic, partition: step.partition, rows: rows(batch), producer };
      stream.write({ tag: number + 1, produce });
    });
    stream.end();
    const answers = [];
    for await (const answer of stream) answers.push({ tag: Number(answer.tag), ...produced(answer.result) });
    return { answers };
  },

  async produce_many(step) {
    const producer = new Producer(orders.addresses, orders.topic);
    const acked = [];
    for (let number = 0; number < step.count; number += 1) {
      const value = `record-${number}`;
      const { partition, base_offset } = produced(await producer.send(step.partition, [Buffer.from(value)]));
      acked.push({ value, partition, offset: base_offset });
      progress(value);
    }
    producer.close();
    return { count: acked.length, acked };
  },

  async read(step) {
    const start = position(step);
    const seen = [];
    for await (const record of read(orders.addresses, start)) seen.push(fields(record));
    return listed(seen, start);
  },

  async follow(step) {
    const start = position(step);
    const seen = [];
    for await (const record of read(orders.addresses, start, true)) {
      seen.push(fields(record));
      progress(text(record.value));
      if (seen.length === step.count) break;
    }
    return listed(seen, start);
  },

  async create_topic(step) {
    const { name, partitions: partition_count, replication_factor, request_id } = step;
    const request = { name, partition_count, replication_factor, request_id };
    return told((await call(stub('TopicService'), 'CreateTopic', request)).topic);
  },

  async get_topic({ name }) {
    return told((await call(stub('TopicService'), 'GetTopic', { name })).topic);
  },

  async list_topics({ page_size }) {
    const pages = [];
    let page_token = '';
    do {
      const answer = await call(stub('TopicService'), 'ListTopics', { page_size, page_token });
      pages.push((answer.topics ?? []).map((topic) => topic.name));
      page_token = answer.next_page_token ?? '';
    } while (page_token);
    const largest_page = Math.max(...pages.map((page) => page.length));
    return { names: pages.flat(), page_count: pages.length, largest_page };
  },

  async update_topic({ name, retention_ms, request_id }) {
    const request = { name, config: { retention_ms }, request_id };
    return told((await call(stub('TopicService'), 'UpdateTopic', request)).topic);
  },

  async delete_topic({ name, request_id }) {
    await call(stub('TopicService'), 'DeleteTopic', { name, request_id });
    return { deleted: true };
  },

  // So many records or, without a count, all until the group has no lag.
  async consume(step) {
    const values = [];
    await consume(orders.addresses, { group: step.group, topics: [orders.topic] }, async (record) => {
      if (record) {
        values.push(text(record.value));
        progress(text(record.value));
      }
      if (step.count !== undefined) return values.length < step.count;
      return record !== null || (await operations.get_group(step)).partitions.some((each) => each.lag > 0);
    });
    return { values };
  },

  async get_group(step) {
    const { group } = await call(stub('GroupService'), 'GetGroup', { group: step.group });
    const partitions = (group.partitions ?? []).map((each) => ({
      topic: each.topic,
      partition: each.partition ?? 0,
      committed: each.committed_offset === undefined ? undefined : Number(each.committed_offset),
      latest: Number(each.latest ?? 0),
      lag: Number(each.lag_records ?? 0),
    }));
    return { name: group.name, partitions };
  },

  // Until the first of the topics is deleted.
  async watch({ names }) {
    const messages = [];
    for await (const change of watch(orders.addresses, names)) {
      messages.push({
        version: Number(change.version),
        is_snapshot: change.is_snapshot ?? false,
        has_more: change.has_more ?? false,
        leaders: leaders(change),
        deleted: change.deleted_topics ?? [],
      });
      leaders(change).forEach(progress);
      if (change.deleted_topics?.includes(names[0])) break;
    }
    return { messages };
  },
};

const results = [];
for (const step of orders.steps) {
  try {
    results.push(await operations[step.op](step));
  } catch (error) {
    if (error.code === undefined) throw error;
    results.push({ error: describe(error) });
  }
}
stubs.forEach((each) => each.close());
process.stdout.write(`${JSON.stringify({ results })}\n`);
