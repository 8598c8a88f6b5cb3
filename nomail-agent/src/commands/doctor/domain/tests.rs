use super::*;

#[test]
fn names_are_escaped() {
    let name = Name::from_labels([&b"a\x1b[31m\xff.b"[..], b"Example"]).unwrap();
    let shown = shown(&name);
    assert!(shown.is_ascii() && !shown.contains('\u{1b}'), "{shown}");
    assert_eq!(super::shown(&Name::root()), "");
}
