//! What is answered where there is nothing to answer.

use serde::{Deserialize, Serialize};

/// What every error answer holds.
#[derive(Debug, Serialize, Deserialize)]
pub struct ErrorBody {
    pub error: ErrorDetail,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct ErrorDetail {
    pub message: String,
    pub hint: String,
}
