//! News of merge queues, told at the address that the operator names.

use kiln_ci::queue::hosted::{News, Told};
use kiln_deploy::timestamp::Timestamp;
use serde_json::{Value, json};

use crate::serve::webhook::{Form, Webhook, plain};

/// Sends one request for each of the news of a step. People (whose form is Slack's) are not told of
/// each run.
pub async fn tell(webhook: &Webhook, told: &Told) -> Result<(), String> {
    let of_runs = |it: &&News| !matches!(it, News::Testing { .. }) || webhook.form == Form::Json;
    for news in told.news.iter().filter(of_runs) {
        let body = webhook.message(|url| generic(told, news, url), |url| slack(told, news, url));
        webhook.post(&body).await?;
    }
    Ok(())
}

fn link(told: &Told, news: &News, base_url: &str) -> String {
    let queue = format!("{base_url}/merge-queues/{}", told.queue.as_str());
    match news {
        News::Rejected { run: Some(run), .. } => format!("{queue}/runs/{run}"),
        _ => queue,
    }
}

/// The news in words, without the name of the branch.
fn text(news: &News) -> String {
    match news {
        News::Queued { priority, .. } => format!("is queued with priority {priority}"),
        News::Testing { run, .. } => format!("is tested in run {run}"),
        News::Held { why, .. } => format!("is held: {why}"),
        News::Landed { commit, .. } => format!("landed in {}", commit.short()),
        News::Rejected { why, .. } | News::Left { why, .. } => why.clone(),
        News::Paused { why } => format!("the queue is paused: {why}"),
        News::Resumed => "the queue goes on".to_owned(),
        News::Runner { name } => format!("{name} runs the queue"),
    }
}

/// The message for programs, as one JSON object.
fn generic(told: &Told, news: &News, base_url: &str) -> Value {
    let seconds = i64::try_from(told.at.0 / 1_000).unwrap_or(i64::MAX);
    let details = serde_json::to_value(news).unwrap_or_default();
    json!({
        "event": news.name(),
        "queue": told.queue.as_str(),
        "number": told.number,
        "at": Timestamp::from_unix(seconds),
        "branch": news.branch().map(ToString::to_string),
        "head": details["head"],
        "commit": details["commit"],
        "run": details["run"],
        "text": text(news),
        "link": link(told, news, base_url),
    })
}

/// The message for Slack: one line of text, in which nothing is markup or calls anybody.
fn slack(told: &Told, news: &News, base_url: &str) -> Value {
    let branch = news.branch().map(|it| format!("`{}` ", plain(it.as_str()))).unwrap_or_default();
    let said = plain(&text(news));
    let (queue, link) = (plain(told.queue.as_str()), link(told, news, base_url));
    json!({ "text": format!("{branch}{said}\n<{link}|Merge queue {queue}>") })
}

#[cfg(test)]
mod tests {
    use kiln_ci::model::Time;
    use kiln_ci::queue::Branch;
    use kiln_ci::queue::serving::LaneName;

    use super::*;

    #[test]
    fn what_others_wrote_is_no_markup() {
        let news = News::Rejected {
            branch: Branch::new("feature/x").unwrap(),
            head: None,
            why: "rejected: <!channel> `x` failed".to_owned(),
            run: Some(7),
        };
        let told = Told {
            queue: LaneName::new("app").unwrap(),
            number: 3,
            at: Time(1_000),
            news: vec![news.clone()],
        };
        let said = slack(&told, &news, "http://k")["text"].as_str().unwrap().to_owned();
        assert_eq!(
            said,
            "`feature/x` rejected: &lt;!channel&gt;  x  failed\n\
             <http://k/merge-queues/app/runs/7|Merge queue app>"
        );
        let object = generic(&told, &news, "http://k");
        assert_eq!(object["at"], "1970-01-01T00:00:01Z");
        assert_eq!((&object["event"], &object["run"]), (&"change.rejected".into(), &7.into()));
        assert!(object["head"].is_null());
    }
}
