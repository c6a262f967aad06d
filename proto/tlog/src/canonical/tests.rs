//! One spelling per value, and nothing else is read.

use super::*;
use proptest::prelude::*;
use serde_json::json;

fn text(value: &Value) -> String {
    String::from_utf8(value_to_vec(value).expect("canonical")).expect("UTF-8")
}

#[test]
fn keys_stand_in_the_order_of_their_utf16_units() {
    // The example of RFC 8785 section 3.2.3, less its last key's value: U+1F600 sorts before U+FB33,
    // though its UTF-8 bytes are larger.
    let value = json!({"\u{20ac}": 1, "\r": 2, "\u{fb33}": 3, "1": 4, "\u{1f600}": 5, "\u{80}": 6, "\u{f6}": 7});
    let expected = "{\"\\r\":2,\"1\":4,\"\u{80}\":6,\"\u{f6}\":7,\"\u{20ac}\":1,\"\u{1f600}\":5,\"\u{fb33}\":3}";
    assert_eq!(text(&value), expected);
}

#[test]
fn strings_escape_only_what_they_must() {
    // RFC 8785 section 3.2.2.2.
    assert_eq!(text(&json!("\u{20ac}$\u{f}\nA'B\"\\\\\"/\u{7f}")), "\"\u{20ac}$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\u{7f}\"");
    assert_eq!(text(&json!("\u{8}\t\u{c}\r\u{0}\u{1f}")), "\"\\b\\t\\f\\r\\u0000\\u001f\"");
}

#[test]
fn numbers_are_integers_that_every_reader_holds_exactly() {
    let most = MAX_INTEGER as i64;
    assert_eq!(text(&json!([most, -most, 0])), "[9007199254740991,-9007199254740991,0]");
    for value in [json!(most + 1), json!(-most - 1), json!(u64::MAX), json!(i64::MIN), json!(1.5), json!(1.0)] {
        assert_eq!(value_to_vec(&value), Err(CanonicalError::Number), "{value}");
    }
    assert_eq!(to_vec(&0.1f32), Err(CanonicalError::Number));
}

#[test]
fn another_spelling_of_the_same_value_is_refused() {
    for good in ["{\"a\":1,\"b\":[true,false,null,\"x\"]}", "{}", "[]", "null", "0", "\"\u{e9}\""] {
        assert!(is_canonical(good.as_bytes()), "{good}");
    }
    let bad = [
        "{\"b\":1,\"a\":1}",
        "{\"a\":1,\"a\":1}",
        "{\"a\": 1}",
        " 1",
        "1 ",
        "1\n",
        "01",
        "1.0",
        "1e0",
        "-0",
        "+1",
        "\"\\u0061\"",
        "\"\\/\"",
        "\"\\u000A\"",
        "[1,]",
        "",
        "nul",
        "\"\\ud800\"",
        "{\"a\":1}{}",
        "9007199254740992",
        "1e400",
        "NaN",
    ];
    for bad in bad {
        assert!(!is_canonical(bad.as_bytes()), "{bad}");
    }
    assert!(!is_canonical(b"\"\xff\""));
    assert!(!is_canonical(b"\xef\xbb\xbf1"));
    assert_eq!(parse(b"{\"a\":1, \"b\":2}"), Err(CanonicalError::Form { at: 7 }));
}

#[test]
fn depth_and_size_are_bounded_in_both_directions() {
    let nest = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert!(is_canonical(nest(MAX_DEPTH).as_bytes()));
    assert_eq!(parse(nest(MAX_DEPTH + 1).as_bytes()), Err(CanonicalError::Depth));
    assert!(matches!(parse(nest(100_000).as_bytes()), Err(CanonicalError::Syntax(_))));
    assert_eq!(parse(&vec![b' '; MAX_BYTES + 1]), Err(CanonicalError::Size));
    assert_eq!(value_to_vec(&json!("x".repeat(MAX_BYTES))), Err(CanonicalError::Size));
    assert_eq!(value_to_vec(&json!("\n".repeat(MAX_BYTES - 2))), Err(CanonicalError::Size));
    assert!(value_to_vec(&json!("x".repeat(MAX_BYTES - 2))).is_ok_and(|bytes| is_canonical(&bytes)));
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-(MAX_INTEGER as i64)..=MAX_INTEGER as i64).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::btree_map(any::<String>(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_reads_back_as_the_same_value(value in values()) {
        let bytes = value_to_vec(&value).expect("canonical");
        prop_assert_eq!(parse(&bytes), Ok(value));
    }

    #[test]
    fn bytes_that_are_read_are_the_only_spelling_of_their_value(value in values(), at in any::<usize>(), byte in any::<u8>()) {
        let mut bytes = value_to_vec(&value).expect("canonical");
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Ok(other) = parse(&bytes) {
            prop_assert_eq!(value_to_vec(&other), Ok(bytes));
        }
    }

    #[test]
    fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&bytes);
    }
}
