//! gRPC and HTTP services over the storage traits. Only here is `tonic::Status` known.
