//! SeaweedFS's S3 gateway as a process of its own.
