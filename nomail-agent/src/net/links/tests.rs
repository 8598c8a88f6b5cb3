use super::*;

#[test]
fn an_interface_is_called_by_each_of_its_names() {
    let mut interface = Interface::absent("eth0");
    let names = ["mail0", "a-name-longer-than-fifteen"];
    let properties = names.map(|name| Prop::AltIfName(name.to_owned()));
    interface.alternatives = alternatives(properties.into());
    for name in names.into_iter().chain(["eth0"]) {
        assert!(interface.is_called(name));
    }
    assert!(!interface.is_called("mail"));
}
