//! What the hermeticity check changes for an action.

use kiln_executor::sandbox::{CommandSpec, Condition, Conditions};

use crate::both;
use crate::harness::Fixture;

/// What `spec` prints under another condition, and whether that could be changed.
async fn under(slot: &mut Fixture, spec: &CommandSpec, condition: Condition) -> (String, bool) {
    let conditions: Conditions = [condition].into_iter().collect();
    let ran = slot.run(&CommandSpec { conditions, ..spec.clone() }).await;
    let said = ran.succeeded().to_owned();
    (said, ran.finished.not_changed.is_empty())
}

fn inputs(slot: &Fixture) {
    for name in ["one", "two", "three", "four", "five"] {
        slot.input(&format!("dir/{name}"), name);
    }
}

both! {
    async fn each_condition_shows_where_it_leaks(slot: &mut Fixture) {
        inputs(slot);
        for (condition, leak) in [
            (Condition::HostName, "uname -n"),
            (Condition::ProcessIds, "echo $$"),
            (Condition::Directory, "pwd"),
            (Condition::Clock, "read a b < /proc/uptime; echo $((${a%.*} / 100000))"),
            (Condition::Cpus, "nproc"),
            (Condition::FileOrder, "ls -U dir"),
            (Condition::ModificationTimes, "stat -c %Y dir/one dir"),
            (Condition::User, "id -u"),
        ] {
            let spec = slot.shell(leak);
            let usual = slot.run(&spec).await.succeeded().to_owned();
            assert_eq!(slot.run(&spec).await.succeeded(), usual, "{leak}");
            let (other, changed) = under(slot, &spec, condition).await;
            assert_eq!(changed, other != usual, "{condition:?}: {usual} and {other}");
            let may_be_impossible = matches!(condition, Condition::User | Condition::Cpus);
            assert!(changed || may_be_impossible, "{condition:?} is not changed");
            // The next action sees nothing of the changed condition.
            assert_eq!(slot.run(&spec).await.succeeded(), usual, "after {condition:?}");
        }
    }

    async fn under_all_of_them_an_action_works_as_usual(slot: &mut Fixture) {
        inputs(slot);
        let mut spec = slot.shell("cat dir/*; echo made > out/file; echo x >> dir/new; mkdir /tmp/t; rm -r dir/one; ls dir");
        spec.directories = vec!["out".to_owned(), "dir".to_owned()];
        let usual = slot.run(&spec).await.succeeded().to_owned();
        spec.conditions = Condition::ALL.into_iter().collect();
        assert_eq!(slot.run(&spec).await.succeeded(), usual);
        spec.conditions = Conditions::default();
        assert_eq!(slot.run(&spec).await.succeeded(), usual);
    }
}
