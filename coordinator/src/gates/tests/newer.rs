//! What a newer release wrote of a gate outlives an older one that works on it, too.

use serde_json::{Value, json};

use super::*;

/// A gate as a newer release would write it: with more in its settings and beside them.
fn newer() -> (Shelf, Value) {
    let (mut shelf, mut book) = (Shelf::default(), Book::default());
    let (written, _done) = oneshot::channel();
    let settings = Settings { max_in_flight: Some(3), ..Settings::default() };
    book.order(&scope(), Order::Set(settings), written, T0).unwrap();
    write(&mut book, &mut shelf, T0);
    let mut value = kept(&shelf);
    value["settings"]["hourly"] = json!({ "most": 9 });
    value["settings"]["budget"] = json!({ "ratio": 0.5, "burst": 7 });
    put(&mut shelf, &value);
    (shelf, value)
}

fn kept(shelf: &Shelf) -> Value {
    serde_json::from_str(&shelf.cells[&scope()].value).unwrap()
}

fn put(shelf: &mut Shelf, value: &Value) {
    shelf.change += 1;
    let cell = shelf.cells.get_mut(&scope()).unwrap();
    (cell.value, cell.version) = (value.to_string(), shelf.change);
}

#[test]
fn settings_of_a_newer_release_stay_while_an_older_one_counts() {
    let (mut shelf, _) = newer();
    let mut book = Book::default();
    book.learn(shelf.all(), T0);
    assert_eq!(book.view(&scope(), T0).settings.max_in_flight, Some(3), "what is known holds here");
    hear(&mut book, "a", hint(60_000), T0 + 1_000);
    write(&mut book, &mut shelf, T0 + 1_000);
    assert_eq!(state(&book, T0 + 1_000), State::Shut);
    let settings = &kept(&shelf)["settings"];
    assert_eq!((&settings["hourly"]["most"], &settings["budget"]["burst"]), (&json!(9), &json!(7)));
    assert_eq!(settings["budget"]["ratio"], json!(0.5));
    let (written, _done) = oneshot::channel();
    let settings = Settings { max_in_flight: Some(4), ..Settings::default() };
    book.order(&scope(), Order::Set(settings), written, T0 + 2_000).unwrap();
    write(&mut book, &mut shelf, T0 + 2_000);
    assert_eq!(kept(&shelf)["settings"], json!({ "max_in_flight": 4 }), "set all at once, as ever");
    hear(&mut book, "a", hint(90_000), T0 + 3_000);
    write(&mut book, &mut shelf, T0 + 3_000);
    assert_eq!(kept(&shelf)["settings"], json!({ "max_in_flight": 4 }));
}

#[test]
fn a_gate_in_a_state_that_is_not_known_is_left_as_it_is() {
    let (mut shelf, mut value) = newer();
    value["settings"]["max_in_flight"] = json!({ "by": "region" });
    put(&mut shelf, &value);
    let mut book = Book::default();
    book.learn(shelf.all(), T0);
    hear(&mut book, "a", hint(60_000), T0 + 1_000);
    write(&mut book, &mut shelf, T0 + 10_000);
    assert_eq!(kept(&shelf), value);
    assert_eq!(book.standing(), Standing::default(), "it holds nothing back here");
}
