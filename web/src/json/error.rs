//! What is answered where there is nothing to answer.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What every error answer holds.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct ErrorBody {
    pub error: ErrorDetail,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct ErrorDetail {
    pub message: String,
    pub hint: String,
}
