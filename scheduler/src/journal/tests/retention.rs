//! What stays when there is more than may be kept.

use proptest::prelude::*;

use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Retention, order and counts against a list as the model.
    #[test]
    fn the_newest_stay_with_all_their_keys(
        steps in prop::collection::vec((0..4_u8, 0..5_u8, any::<bool>()), 1..120),
        max_executions in 1..40_u64,
        max_builds in 1..4_u64,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let records = memory_records();
            let config = JournalConfig { max_executions, max_builds, ..JournalConfig::default() };
            let (mut journal, mut events) = start(&records, config.clone()).await;
            let mut model = Vec::new();
            for (i, (target, build, restart)) in steps.iter().enumerate() {
                let id = format!("op-{i}");
                let (target, build) = (format!("//t{target}"), format!("b{build}"));
                events.publish(execution(&id, &target, &build, &target));
                model.push((id, target));
                if *restart {
                    journal.shutdown().await;
                    (journal, events) = start(&records, config.clone()).await;
                }
            }
            journal.flush().await;
            model.reverse();
            model.truncate(max_executions as usize);
            let expected: Vec<_> = model.iter().map(|(id, _)| id.clone()).collect();
            assert_eq!(ids(&journal, &Query::Recent).await, expected);
            let query = Query::Target { target: "//t0".into(), mnemonic: None };
            let of_target: Vec<_> = model
                .iter()
                .filter(|(_, target)| target == "//t0")
                .map(|(id, _)| id.clone())
                .collect();
            assert_eq!(ids(&journal, &query).await, of_target);
            let stats = journal.stats();
            assert_eq!(stats.executions, model.len() as u64);
            assert!(stats.builds <= max_builds);
            for prefix in ["x/", "id/", "action/", "target/", "invocation/"] {
                let keys = keys_of(&records, &format!("journal/{prefix}")).await;
                assert_eq!(keys.len(), model.len(), "{prefix}: {keys:?}");
            }
            for prefix in ["build/", "builds/"] {
                let keys = keys_of(&records, &format!("journal/{prefix}")).await;
                assert_eq!(keys.len() as u64, stats.builds, "{prefix}: {keys:?}");
            }
        });
    }
}
