//! Groups: nobody is dropped, and one at a time has its turn.

use std::collections::BTreeSet;

use proptest::prelude::*;

use crate::pipelines::file::Busy;
use crate::pipelines::machine::{Group, GroupFull, MAX_QUEUE};

proptest! {
    #[test]
    fn every_run_has_its_turn_or_is_told_who_took_it(
        drawn in prop::collection::vec((any::<bool>(), any::<bool>(), any::<u8>()), 0..40)
    ) {
        let mut group = Group::default();
        let (mut inside, mut next) = (BTreeSet::<String>::new(), 0);
        for (enters, supersedes, which) in drawn {
            if enters {
                let (run, busy) = (format!("r{next}"), [Busy::Queue, Busy::Supersede][usize::from(supersedes)]);
                let others = inside.clone();
                group.enter(&run, busy).unwrap();
                group.enter(&run, Busy::Queue).unwrap();
                for other in &others {
                    prop_assert!(!supersedes || group.superseded(other).is_some());
                }
                prop_assert_eq!(group.superseded(&run), None);
                inside.insert(run);
                next += 1;
            } else if let Some(run) = inside.iter().nth(usize::from(which) % inside.len().max(1)).cloned() {
                group.leave(&run);
                group.leave(&run);
                inside.remove(&run);
            }
            let known: BTreeSet<_> = group.holder.iter().chain(&group.queue).cloned().collect();
            prop_assert_eq!(&known, &inside);
            prop_assert_eq!(group.is_empty(), inside.is_empty());
            prop_assert!(group.superseded.keys().all(|it| inside.contains(it)));
        }
        // Whoever has its turn ends, until nobody is left.
        while let Some(holder) = group.holder.clone() {
            prop_assert!(group.has_turn(&holder) && inside.remove(&holder));
            group.leave(&holder);
        }
        prop_assert!(inside.is_empty(), "{:?} never had their turn", inside);
    }
}

#[test]
fn a_full_group_says_so() {
    let mut group = Group::default();
    for run in 0..=MAX_QUEUE {
        group.enter(&run.to_string(), Busy::Queue).unwrap();
    }
    assert_eq!(group.enter("more", Busy::Supersede), Err(GroupFull));
    assert!(group.superseded.is_empty(), "nobody is superseded by a run that is not there");
}
