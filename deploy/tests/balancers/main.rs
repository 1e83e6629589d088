//! nginx (`KILN_NGINX`) and HAProxy (`KILN_HAPROXY`) as they really split requests, every one of which is counted.
//! scripts/test.sh installs both and sets the variables.
#![allow(clippy::panic, clippy::unwrap_used)]

mod command;
mod haproxy;
mod nginx;
mod rig;
