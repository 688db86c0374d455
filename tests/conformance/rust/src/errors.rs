//! What an error of the cluster says: the reason, the outcome and the facts that stand in error.proto.
use prost::Message;
use serde_json::{json, Value};

use crate::google_rpc::{ErrorInfo, Status};

pub fn describe(error: &tonic::Status) -> Value {
    let said = |name| error.metadata().get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
    let mut found = json!({
        "code": i32::from(error.code()),
        "message": error.message(),
        // For programs that cannot decode the details, two trailers say the same.
        "trailers": { "reason": said("rakit-reason"), "outcome": said("rakit-outcome") },
    });
    for detail in Status::decode(error.details()).unwrap_or_default().details {
        if detail.type_url.ends_with("/google.rpc.ErrorInfo") {
            let info = ErrorInfo::decode(detail.value.as_slice()).unwrap_or_default();
            // Empty: this was no mutation. Without ErrorInfo: the outcome is UNKNOWN.
            found["outcome"] = json!(info.metadata.get("outcome").map_or("", String::as_str));
            found["reason"] = json!(info.reason);
            found["domain"] = json!(info.domain);
            found["metadata"] = json!(info.metadata);
        }
    }
    found
}
