//! nginx (`KILN_NGINX`), HAProxy (`KILN_HAPROXY`) and Envoy (`KILN_ENVOY`) as they really split requests, every one of
//! which is counted. scripts/test.sh installs them and sets the variables.
#![allow(clippy::panic, clippy::unwrap_used)]

mod command;
mod envoy;
mod haproxy;
mod nginx;
mod rig;
