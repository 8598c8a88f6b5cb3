use super::*;

#[test]
fn names_this_process() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let process = listening_process(listener.local_addr().unwrap()).unwrap();
    assert!(
        process.ends_with(&format!("(pid {})", std::process::id())),
        "{process}"
    );
    let address = listener.local_addr().unwrap();
    assert!(has_listener(address));
    drop(listener);
    assert!(!has_listener(address));
    assert_eq!(listening_process(address), None);
}
