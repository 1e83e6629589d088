use kiln_web::json::{RolloutSaid, RolloutShown};
use proptest::prelude::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::style::Color;
use serde_json::{Value, json};

use super::draw::draw;
use super::looks::Looks;
use super::state::{Act, Key, Mode, Screen};

const PLAIN: Looks = Looks { colours: false, unicode: false };
const RICH: Looks = Looks { colours: true, unicode: true };

const ROLLOUT: &str = r#"{
  "id": "m9x2kq41c7ab", "service": "api", "environment": "prod", "release": "team/app:2",
  "digest": "sha256:22", "previous": "team/app:1", "phase": "baking", "paused": false, "ended": false,
  "drill_s": null, "targets": 4, "changed": 2, "by": "anna", "reason": "June",
  "started": "2026-11-30T10:00:00Z", "updated": "2026-11-30T10:02:00Z", "now": "2026-11-30T10:02:00Z",
  "steps": [
    {"name": "25 %", "targets": 1, "gate": false, "bake_s": 60, "traffic": null, "standing": "done"},
    {"name": "50 %", "targets": 2, "gate": false, "bake_s": 60, "traffic": 50.0, "standing": "now"},
    {"name": "100 %", "targets": 4, "gate": true, "bake_s": 90, "traffic": null, "standing": "ahead"}
  ],
  "since": "2026-11-30T10:01:30Z", "next": "2026-11-30T10:02:42Z", "deadline": "2026-12-01T10:00:00Z",
  "why": null, "paused_why": null, "extensions": 1, "reverted_s": null, "drill": null,
  "told": [
    {"name": "a", "standing": "settled", "desired": "sha256:22"},
    {"name": "b", "standing": "waits", "desired": "sha256:22"}
  ],
  "judgements": [],
  "latest": {
    "at": "2026-11-30T10:01:58Z", "from": "2026-11-30T10:01:30Z", "step": 1, "canary": 2, "baseline": 2,
    "verdict": "hold", "breach": false, "reasons": ["p99: too few points, 12 of 30"],
    "judgement": {"metrics": [
      {"name": "errors", "classification": "Pass", "reason": "no difference that is certain"},
      {"name": "p99", "classification": "High", "reason": "the canary is higher"}
    ]},
    "series": [
      {"metric": "p99", "canary": [0.2, null, 0.9], "baseline": [0.1, 0.3, 0.2]},
      {"metric": "errors", "canary": [null], "baseline": []}
    ]
  },
  "events": [
    {"number": 0, "at": "2026-11-30T10:00:00Z", "event": "started", "text": "it began"},
    {"number": 1, "at": "2026-11-30T10:00:01Z", "event": {"done": [0, 0]}, "text": null},
    {"number": 2, "at": "2026-11-30T10:01:30Z", "event": "bake_began", "text": "the targets of the step run it"}
  ]
}"#;

fn screen(change: impl FnOnce(&mut Value)) -> Screen {
    let mut value: Value = serde_json::from_str(ROLLOUT).expect("JSON");
    change(&mut value);
    let shown: RolloutShown = serde_json::from_value(value).expect("a rollout");
    Screen::new(shown)
}

fn drawn(screen: &Screen, (width, height): (u16, u16), looks: Looks) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
    terminal.draw(|frame| draw(frame, screen, looks)).expect("it is drawn");
    terminal.backend().buffer().clone()
}

fn text(buffer: &Buffer) -> String {
    let width = usize::from(buffer.area.width).max(1);
    let line = |cells: &[ratatui::buffer::Cell]| {
        let line: String = cells.iter().map(|cell| cell.symbol()).collect();
        format!("{}\n", line.trim_end())
    };
    buffer.content.chunks(width).map(line).collect()
}

#[test]
fn all_of_it_is_on_a_screen_of_80_columns() {
    let shown = text(&drawn(&screen(|_| {}), (80, 40), PLAIN));
    for part in [
        "team/app:2 for api in prod",
        "baking for 0:30",
        " 2 of 4 told, 1 settled",
        "next decision in 0:42",
        "given up and reverted in 23:58:00",
        "returns to team/app:1",
        "x 25 %",
        "> 50 %     2 of 4 targets, 50 % of the requests, bakes 1:00",
        ". 100 %    4 of 4 targets, bakes 1:30, a person lets it in",
        "hold at 10:01:58",
        "p99: too few points, 12 of 30",
        "watched once more",
        "p99 High",
        "now 0.9000, the old version 0.1000 to 0.3000",
        "  new . #",
        "  old _,.",
        "2 with the new version, compared with 2 of the old one",
        "b waits",
        "10:01:30 the targets of the step run it",
        "q quit, p pause, a abort",
    ] {
        assert!(shown.contains(part), "{part}\n{shown}");
    }
    let (bad, good) = (shown.find("p99 High"), shown.find("errors Pass"));
    assert!(bad < good, "what is bad comes first: {shown}");
    assert!(!shown.contains("done"), "that an effect was carried out: {shown}");
}

#[test]
fn who_has_the_lock_that_is_waited_for_is_seen() {
    let waits = screen(|it| {
        it["phase"] = json!("waiting");
        it["waits_for"] = json!("bob has the deploy lock until 2026-11-30T12:00:00Z: a migration");
    });
    let shown = text(&drawn(&waits, (80, 40), PLAIN));
    assert!(shown.contains("waits: bob has the deploy lock"), "{shown}");
}

#[test]
fn a_narrow_terminal_shows_the_same_in_short_and_a_wide_one_beside_each_other() {
    let narrow = text(&drawn(&screen(|_| {}), (40, 30), PLAIN));
    for part in [
        "baking for 0:30",
        "> 50 %     2/4, 1:00",
        ". 100 %    4/4, 1:30, gate",
        "hold at",
        "p99 High",
        "q quit",
    ] {
        assert!(narrow.contains(part), "{part}\n{narrow}");
    }
    let wide = text(&drawn(&screen(|_| {}), (120, 30), PLAIN));
    let line = wide.lines().find(|line| line.starts_with("- steps")).expect("the steps");
    assert!(line.contains("- the judge"), "{wide}");
}

#[test]
fn what_is_too_much_says_how_much_more_there_is_and_the_step_is_always_seen() {
    let many = screen(|it| {
        let step = |at: u64| {
            let standing = if at == 20 {
                "now"
            } else if at < 20 {
                "done"
            } else {
                "ahead"
            };
            json!({"name": format!("step-{at}"), "targets": at, "gate": false, "bake_s": 1, "traffic": null, "standing": standing})
        };
        it["steps"] = (0..40).map(step).collect();
    });
    for height in [9, 12, 24] {
        let shown = text(&drawn(&many, (60, height), PLAIN));
        let has = height < 10 || (shown.contains("> step-20") && shown.contains(" more)"));
        assert!(has && shown.contains("q quit"), "{height}\n{shown}");
    }
}

#[test]
fn of_many_events_the_newest_are_seen_and_the_others_counted() {
    let many = screen(|it| {
        let event = |at: u64| {
            let text = format!("event-{at}.");
            json!({"number": at, "at": "2026-11-30T10:00:00Z", "event": "x", "text": text})
        };
        it["events"] = (0..100).map(event).collect();
    });
    let shown = text(&drawn(&many, (80, 40), PLAIN));
    assert!(shown.contains("event-99.") && !shown.contains("event-0."), "{shown}");
    let line = shown.lines().find(|line| line.contains("what happened")).expect("the events");
    assert!(line.contains(" more)"), "{shown}");
}

#[test]
fn without_colours_what_is_bad_is_told_apart_all_the_same() {
    let reverted = screen(|it| {
        it["phase"] = json!("rolling_back");
        it["why"] = json!("a target crashes");
    });
    let plain = drawn(&reverted, (80, 30), PLAIN);
    assert!(text(&plain).contains("reverted because: a target crashes"), "{}", text(&plain));
    assert!(plain.content.iter().all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset));
    assert!(plain.content.iter().any(|cell| !cell.modifier.is_empty()));
    let rich = drawn(&reverted, (80, 30), RICH);
    assert!(rich.content.iter().any(|cell| cell.fg == Color::Red));
    assert!(text(&rich).contains("▶ 50 %"), "{}", text(&rich));
}

#[test]
fn what_others_wrote_cannot_draw() {
    let shown = screen(|it| it["reason"] = json!("a\u{1b}[31mb\u{7}\nc"));
    let shown = text(&drawn(&shown, (80, 30), PLAIN));
    assert!(shown.contains("began by anna: ab c"), "{shown}");
}

fn press(screen: &mut Screen, keys: &str) -> Act {
    let mut act = Act::Nothing;
    for key in keys.chars() {
        act = screen.press(if key == '\n' { Key::Enter } else { Key::Char(key) });
    }
    act
}

#[test]
fn a_person_pauses_with_a_reason_and_aborts_with_a_yes() {
    let mut it = screen(|_| {});
    let said = press(&mut it, "plook at it\n");
    assert_eq!(said, Act::Say { what: RolloutSaid::Pause, reason: "look at it".to_owned() });

    assert_eq!(press(&mut it, "a \n"), Act::Nothing);
    assert!(text(&drawn(&it, (80, 30), PLAIN)).contains("say why"), "a reason is demanded");
    assert_eq!(press(&mut it, "bad\n"), Act::Nothing);
    let asked = text(&drawn(&it, (80, 30), PLAIN));
    assert!(asked.contains("revert 2 targets to team/app:1? (y: yes)"), "{asked}");
    let mut other = it.clone();
    assert_eq!((press(&mut other, "n"), &other.mode), (Act::Nothing, &Mode::Watching));
    let said = press(&mut it, "y");
    assert_eq!(said, Act::Say { what: RolloutSaid::Abort, reason: " bad".to_owned() });
    assert_eq!(press(&mut it, "q"), Act::Leave);
}

#[test]
fn keys_that_mean_nothing_now_say_why() {
    let mut it = screen(|it| it["paused"] = json!(true));
    for (keys, why) in [("p", "paused already"), ("g", "waits at no gate")] {
        assert_eq!(press(&mut it, keys), Act::Nothing);
        assert!(it.note.as_deref().is_some_and(|note| note.contains(why)), "{:?}", it.note);
    }
    let mut over = screen(|it| it["phase"] = json!("rolling_back"));
    press(&mut over, "a");
    assert_eq!(
        (over.mode, over.note.as_deref()),
        (Mode::Watching, Some("it is reverted or over already"))
    );
    // Ctrl-C leaves, whatever is being typed.
    press(&mut it, "rwhy");
    assert_eq!(it.press(Key::Back), Act::Nothing);
    assert_eq!(it.mode, Mode::Reason { what: RolloutSaid::Resume, text: "wh".to_owned() });
    assert_eq!(it.press(Key::Interrupt), Act::Leave);
}

#[test]
fn a_server_that_does_not_answer_leaves_what_was_known() {
    let mut it = screen(|_| {});
    it.silent = Some("cannot reach the server".to_owned());
    it.age = std::time::Duration::from_secs(12);
    let shown = text(&drawn(&it, (80, 30), PLAIN));
    for part in
        ["no answer for 0:12: cannot reach the server", "next decision in 0:30", "baking for 0:42"]
    {
        assert!(shown.contains(part), "{part}\n{shown}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever the terminal's size, and whatever is typed: something is drawn, and nothing panics.
    #[test]
    fn it_is_drawn_at_every_size(width in 0u16..200, height in 0u16..60, keys in "[parg\ny ]{0,12}", rich: bool) {
        let mut it = screen(|_| {});
        press(&mut it, &keys);
        it.silent = (height % 2 == 0).then(|| "gone".to_owned());
        drawn(&it, (width, height), if rich { RICH } else { PLAIN });
    }
}
