//! Redis as this project uses it: one connection for all, scripts, subscriptions.
