//! What is cut into shards, and the plan that comes of it.

/// A test with the seconds that it is expected to take: finite, not negative.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    pub name: String,
    pub seconds: f64,
}

/// Tests of one shard by name.
#[derive(Clone, Debug, PartialEq)]
pub struct Shard {
    pub tests: Vec<String>,
    pub expected_s: f64,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub shards: Vec<Shard>,
    /// What the longest shard is expected to take.
    pub makespan_s: f64,
    /// No plan takes less: the mean of the shards, or the longest test.
    pub lower_bound_s: f64,
}
