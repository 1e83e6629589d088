//! One delivery at several frontends, whose clocks are apart.

use super::*;

const HOURS: u64 = 2 * 3_600_000;

#[tokio::test]
async fn frontends_that_act_on_the_same_delivery_at_once_ask_once() {
    let meeting = Some(Arc::new(Barrier::new(2)));
    let one = house_over(Kind::GitHub, SECRET, true, Desk { meeting, ..Desk::default() });
    let two = house_over(Kind::GitHub, SECRET, true, one.desk.clone());
    *two.clock.0.lock().unwrap() = Time(NOW + HOURS);
    let labeled = labeled();
    // Both have found that it is new before one of them asks; the copy comes under another id.
    let (first, second) = tokio::join!(
        one.github("1", "pull_request", &labeled),
        two.github("2", "pull_request", &labeled)
    );
    let answers = [first.unwrap(), second.unwrap()];
    assert!(answers.contains(&Accepted::Known), "{answers:?}");
    assert!(answers.contains(&Accepted::Asked("queue app was asked".to_owned())), "{answers:?}");
    assert_eq!(one.asked(), 1);
}

#[tokio::test]
async fn what_a_lost_frontend_has_asked_is_not_asked_again() {
    let one = house(Kind::GitHub, SECRET);
    // What is old, both names, and the request; nothing of what would note that all is done.
    one.memory.fail_after(4, false);
    let asked = one.github("1", "pull_request", &labeled()).await;
    assert_eq!(asked, Ok(Accepted::Asked("queue app was asked".to_owned())));
    one.memory.recover();
    let two = house_over(Kind::GitHub, SECRET, false, one.desk.clone());
    for clock in [NOW - HOURS, NOW, NOW + HOURS] {
        *two.clock.0.lock().unwrap() = Time(clock);
        let again = two.github("1", "pull_request", &labeled()).await;
        assert_eq!(again, Ok(Accepted::Known), "{clock}");
    }
    assert_eq!(one.asked(), 1);
}

#[tokio::test]
async fn what_was_asked_in_part_is_asked_in_full_when_it_comes_again_and_once() {
    let house = house(Kind::GitHub, SECRET);
    let mut moved = labeled();
    moved["action"] = json!("edited");
    moved["changes"] = json!({"base": {"ref": {"from": "next"}}});
    // What is old, both names, and that it leaves the queue that it was in; not that it comes to the other one.
    house.memory.fail_after(4, false);
    let failed = house.github("1", "pull_request", &moved).await;
    assert!(matches!(failed, Err(Rejected::Unavailable(_))), "{failed:?}");
    assert_eq!(house.asked(), 1);
    house.memory.recover();
    let again = house.github("1", "pull_request", &moved).await;
    assert_eq!(again, Ok(Accepted::Asked("queue app was asked".to_owned())));
    assert_eq!(house.github("2", "pull_request", &moved).await, Ok(Accepted::Known));
    assert_eq!(house.asked(), 2);
}
