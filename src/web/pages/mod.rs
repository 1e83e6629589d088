//! The pages, one module each, and the parts they share.

pub mod action;
mod action_parts;
mod activity;
pub mod build;
pub mod builds;
mod chart;
pub mod hermeticity;
pub mod layout;
pub mod overview;
mod parts;
pub mod queue;
pub mod tree;
mod waterfall;
mod why;
