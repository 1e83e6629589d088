//! Estimates for the scheduler, by test intelligence, how long shards of tests take.

use kiln_ci::expected::ExpectedShards;
use kiln_ci::model::TestKey;
use kiln_scheduler::{ShardEstimator, TestShard};

/// Estimates how long a shard of a test takes by how long it took before.
pub struct Shards(pub ExpectedShards);

impl ShardEstimator for Shards {
    fn shard_ms(&self, shard: &TestShard<'_>) -> Option<u64> {
        let test = TestKey {
            instance: shard.instance.to_owned(),
            label: shard.label.to_owned(),
            configuration: shard.configuration.to_owned(),
        };
        let expected = self.0.expected(&test, shard.index, shard.count)?;
        u64::try_from(expected.as_millis()).ok()
    }
}
