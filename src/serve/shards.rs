//! What the scheduler asks of test intelligence about shards of tests.

use kiln_ci::expected::ExpectedShards;
use kiln_ci::model::TestKey;
use kiln_scheduler::{ShardEstimator, TestShard};

/// By what they took before.
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
