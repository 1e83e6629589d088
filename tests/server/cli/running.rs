//! What the commands show of builds that have not ended.

use super::*;

/// Runs a command until its stdout holds `part`, and returns the stdout. The journal and the queue show a change only
/// moments later.
pub fn says_soon(kiln: &Kiln, arguments: &[&str], part: &str) -> String {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        let said = kiln.run(arguments);
        if said.stdout.contains(part) {
            return said.stdout;
        }
        let late = std::time::Instant::now() > deadline;
        assert!(!late, "{part} is not in {arguments:?}: {}{}", said.stdout, said.stderr);
        std::thread::park_timeout(std::time::Duration::from_millis(50));
    }
}

#[tokio::test(flavor = "multi_thread")]
#[allow(deprecated)] // Buck2 names the platform on the command alone.
async fn a_build_is_shown_from_its_first_request_to_whatever_end() {
    let setting = setting().await;
    let Setting { kiln, client, directory, _server: server } = setting;
    let execute = |action: &reapi::Digest, target: &str, build: &str| {
        let (client, action, metadata) = (client.clone(), action.clone(), metadata(target, build));
        tokio::spawn(async move { client.execute_with(action, &metadata).await })
    };
    let endless = Spec::shell("printf '\\033[31mbegun\\033[0m\\n'; sleep 600", &[]);
    let endless = client.prepare(&Spec { timeout: Some(900), ..endless }).await;
    let running = execute(&endless, "//app:endless", "build-cancelled");

    let shown = says_soon(&kiln, &["build", "show", "last"], "| begun");
    for part in
        ["build build-cancelled", "1 action runs or waits", "//app:endless Genrule  runs for"]
    {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
    assert!(!shown.contains('\u{1b}'), "colours are for terminals: {shown}");
    assert!(kiln.says(&["build", "list"]).contains("1 open"));
    let value = kiln.json(&["build", "show", "build-cancelled"]);
    assert_eq!((&value["state"], &value["open"]), (&"running".into(), &1.into()));
    let operation = value["operations"][0]["name"].as_str().expect("a name").to_owned();
    for name in [operation.as_str(), "//app:endless", &endless.hash[..8]] {
        let shown = kiln.says(&["action", "show", name]);
        assert!(shown.contains("output so far\n  begun"), "{name}: {shown}");
    }
    let listed = kiln.says(&["action", "list", "--target", "//app:endless"]);
    assert!(listed.contains("runs for") && listed.contains(&operation), "{listed}");
    let page = support::server::get_text(&server.address, "/builds/build-cancelled");
    assert!(page.contains("<span class=\"c1\">begun</span>"), "{page}");

    // No worker can take this action. Kiln says so at once, and not only when it gives the action up.
    let mut unservable = Spec::shell("true", &[]);
    unservable.command.platform = Some(reapi::Platform {
        properties: vec![reapi::platform::Property { name: "gpu".into(), value: "1".into() }],
    });
    let unservable = client.prepare(&unservable).await;
    let waiting = execute(&unservable, "//app:gpu", "build-gpu");
    let shown = says_soon(&kiln, &["build", "show", "build-gpu"], "waits for");
    assert!(shown.contains("no worker offers gpu=1"), "{shown}");
    assert!(kiln.says(&["status"]).contains("no worker can take 1 waiting action"));

    // The test cancels both actions by the names of their operations.
    let gpu = kiln.json(&["build", "show", "build-gpu"]);
    let gpu = gpu["operations"][0]["name"].as_str().expect("a name");
    let mut operations =
        kiln_protos::longrunning::operations_client::OperationsClient::new(client.channel.clone());
    for name in [operation.as_str(), gpu] {
        let request = kiln_protos::longrunning::CancelOperationRequest { name: name.into() };
        operations.cancel_operation(request).await.expect("it is cancelled");
    }
    for task in [running, waiting] {
        task.await.expect("no panic").expect("an answer");
    }
    for build in ["build-cancelled", "build-gpu"] {
        let shown = says_soon(&kiln, &["build", "show", build], "1 cancelled");
        assert!(shown.contains("0 failed") && shown.contains("was stopped"), "{shown}");
    }
    let shown = kiln.says(&["action", "show", &text(&unservable)]);
    assert!(shown.contains("//app:gpu Genrule: cancelled"), "{shown}");

    // The queue of a server is lost when the server is killed.
    let lost = execute(&endless, "//app:endless", "build-lost");
    says_soon(&kiln, &["build", "show", "build-lost"], "| begun");
    says_soon(&kiln, &["status", "--json"], "\"builds\": 3");
    server.kill();
    assert!(lost.await.expect("no panic").is_err());
    let server = Server::start(&directory.path().join("kiln"), &[]);
    let kiln = Kiln { server: server.url() };
    let shown = kiln.says(&["build", "show", "build-lost"]);
    assert!(shown.contains("1 action will never end"), "{shown}");
    assert!(kiln.says(&["build", "list"]).contains("1 lost"));
}
