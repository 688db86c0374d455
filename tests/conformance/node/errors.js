// What an error of the cluster says: the reason, the outcome and the facts that stand in error.proto.
import { ErrorInfo, Status } from './stubs.js';

export function describe(error) {
  const first = (name) => error.metadata?.get(name)[0] ?? '';
  const found = { code: error.code, message: error.details };
  // For programs that cannot decode the details, two trailers say the same.
  found.trailers = { reason: first('rakit-reason'), outcome: first('rakit-outcome') };
  const details = first('grpc-status-details-bin');
  for (const detail of details ? Status.decode(details).details : []) {
    if (detail.type_url.endsWith('/google.rpc.ErrorInfo')) {
      const { reason, domain, metadata } = ErrorInfo.decode(detail.value);
      // Without an outcome this was no mutation. Without ErrorInfo: the outcome is UNKNOWN.
      Object.assign(found, { reason, domain, metadata, outcome: metadata.outcome ?? '' });
    }
  }
  return found;
}
