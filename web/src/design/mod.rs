//! How pages look: their frame, charts, and the pieces that all of them use.

pub mod chart;
pub mod layout;
pub mod parts;
pub mod rows;
pub mod text;
