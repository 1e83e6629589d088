use std::path::Path;
use std::sync::Arc;

use kiln_deploy::rollouts::machine::Generation;
use kiln_deploy::rollouts::parts::{Applied, Traffic};

use crate::rig::{declared, place, said, servers, split};

fn script(dir: &Path, text: &str) -> Arc<dyn Traffic> {
    let path = dir.join("split.sh");
    std::fs::write(&path, text).unwrap();
    let path = path.display();
    declared(&format!("kind = \"command\"\ncommand = [\"sh\", \"{path}\"]\ntimeout_s = 2"))
}

#[tokio::test]
async fn a_program_is_told_and_asked_what_holds() {
    let dir = tempfile::tempdir().unwrap();
    let (servers, at) = (servers().await, dir.path());
    // The program keeps the split that it was told, without the fields that make a request of it.
    let keeps = format!(
        "read -r told || :\ncase \"$told\" in\n*observe*) cat '{dir}/split' 2> /dev/null || echo null ;;\n\
         *) echo \"$told\" | sed 's/\"do\":\"set\",\"place\":{{[^}}]*}},//' > '{dir}/split'; \
         echo '{{\"applied\":\"now\"}}' ;;\nesac\n",
        dir = at.display(),
    );
    let traffic = script(at, &keeps);
    assert_eq!(traffic.observe(&place()).await.unwrap(), None);
    let wanted = split(&servers, 3, 12.5);
    assert_eq!(traffic.set(&place(), &wanted).await.unwrap(), Applied::Now);
    assert_eq!(traffic.observe(&place()).await.unwrap(), Some(wanted.clone()));

    let stale = script(at, "cat > /dev/null; echo '{\"stale\":{\"fence\":9,\"change\":0}}'");
    let newer = Generation { fence: 9, change: 0 };
    assert_eq!(stale.set(&place(), &wanted).await.unwrap(), Applied::Stale(newer));
    for (text, part) in [
        ("cat > /dev/null; echo no route >&2; exit 1", "no route"),
        ("cat > /dev/null", "not understood"),
        ("cat > /dev/null; echo '{\"applied\":\"soon\"}'", "not understood"),
        ("cat > /dev/null; echo '{\"stale\":{\"fence\":0,\"change\":0}}'", "not newer"),
        ("sleep 60", "took longer than 2s"),
    ] {
        let error = said(&*script(at, text).set(&place(), &wanted).await.unwrap_err());
        assert!(error.contains(part), "{error}");
    }
    let forged = "{\"generation\":{\"fence\":1,\"change\":1},\"pools\":[{\"side\":\"canary\",\"share\":7,\"members\":[]}]}";
    let error = script(at, &format!("cat > /dev/null; echo '{forged}'"));
    let error = said(&*error.observe(&place()).await.unwrap_err());
    assert!(error.contains("nobody is there to get 7 %"), "{error}");
}
