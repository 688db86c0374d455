// The contract, loaded from its protos.
import path from 'node:path';

import grpc from '@grpc/grpc-js';
import protoLoader from '@grpc/proto-loader';
import protobuf from 'protobufjs';

const protos = process.env.RAKIT_PROTOS;
const services = ['log_service', 'topic_service', 'group_service', 'cluster_service'];

// Numbers of 64 bits come as strings; offsets and ids fit into a Number. A field that is absent has no property.
const loaded = protoLoader.loadSync(
  services.map((name) => `rakit/api/v1/${name}.proto`),
  { includeDirs: [protos], keepCase: true, longs: String, enums: String, oneofs: true },
);
export const api = grpc.loadPackageDefinition(loaded).rakit.api.v1;

// The details of an error are a message inside of bytes.
const root = new protobuf.Root();
root.resolvePath = (_origin, target) => path.join(protos, target);
root.loadSync(['google/rpc/status.proto', 'google/rpc/error_details.proto']);
export const Status = root.lookupType('google.rpc.Status');
export const ErrorInfo = root.lookupType('google.rpc.ErrorInfo');
