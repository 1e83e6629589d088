//! What is wrong with a request, field by field: `google.rpc.BadRequest`.

use kiln_protos::protobuf::Any;
use kiln_protos::rpc;
use prost::Message;
use tonic::{Code, Status};

use super::missing::grpc_error;

const BAD_REQUEST: &str = "type.googleapis.com/google.rpc.BadRequest";
/// Violations that travel with an error: trailers are small.
pub const MAX_VIOLATIONS: usize = 8;
/// Most bytes of the description of one violation, which may repeat what the client sent.
const MAX_DESCRIPTION: usize = 150;

/// `google.rpc.BadRequest`, of which the generated types have none.
#[derive(Clone, PartialEq, Message)]
struct BadRequest {
    #[prost(message, repeated, tag = "1")]
    field_violations: Vec<Violation>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Violation {
    #[prost(string, tag = "1")]
    pub field: String,
    #[prost(string, tag = "2")]
    pub description: String,
}

impl Violation {
    pub fn new(field: &str, description: impl Into<String>) -> Self {
        let mut description = description.into();
        if description.len() > MAX_DESCRIPTION {
            description.truncate(description.floor_char_boundary(MAX_DESCRIPTION));
            description.push_str("...");
        }
        Self { field: field.to_owned(), description }
    }
}

/// INVALID_ARGUMENT with one detail that lists the first violations.
pub fn bad_request(message: String, mut violations: Vec<Violation>) -> Status {
    violations.truncate(MAX_VIOLATIONS);
    let value = BadRequest { field_violations: violations }.encode_to_vec();
    let details = vec![Any { type_url: BAD_REQUEST.to_owned(), value }];
    grpc_error(rpc::Status { code: Code::InvalidArgument as i32, message, details })
}
