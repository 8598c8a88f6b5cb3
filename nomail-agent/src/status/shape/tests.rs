use super::*;

#[test]
fn json_has_the_keys_of_the_contract() {
    let status = Status {
        interfaces: vec![InterfaceStatus::default()],
        sources: vec![SourceStatus::default()],
        ..Status::default()
    };
    let json = serde_json::to_value(&status).unwrap();
    let contract = [
        (
            "",
            "version abi hostname uptime_secs flood observe interfaces guarded reload config_hash syn answers connections sources",
        ),
        ("/reload", "ok age_secs error needs_restart"),
        ("/interfaces/0", "name xdp_mode program_id pinned"),
        (
            "/syn",
            "total passed limited_source limited_prefix denied flood malformed",
        ),
        ("/answers", "cookie challenge proven stateless"),
        (
            "/connections",
            "accepted active refused_greeting refused_ehlo refused_mail refused_rcpt quit timed_out shed",
        ),
        (
            "/sources/0",
            "source syn limited connections last_seen_secs",
        ),
    ];
    for (path, keys) in contract {
        let object = json.pointer(path).unwrap();
        for key in keys.split(' ') {
            assert!(object.get(key).is_some(), "{path}/{key}");
        }
    }
}

#[test]
fn an_agent_without_the_new_keys_is_understood() {
    let status = Status {
        agent_running: true,
        ..Status::default()
    };
    let mut json = serde_json::to_value(&status).unwrap();
    let keys = json.as_object_mut().unwrap();
    for key in [
        "agent_running",
        "unguarded",
        "addresses",
        "contended",
        "responder",
    ] {
        keys.remove(key).unwrap();
    }
    assert_eq!(serde_json::from_value::<Status>(json).unwrap(), status);
}
