use super::*;

#[test]
fn the_process_reads_what_it_needs_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("t.toml");
    let load = |text: &str| {
        std::fs::write(&file, text).unwrap();
        CrowdsecProcess::load(Some(&file))
    };
    let text = "user = \"12345\"\nlimits.syn_rate = 0\nlists.deny_files = [\"/missing\"]\n\
                log.format = \"json\"\ncrowdsec = { api_key_file = \"/k\", interval_secs = 9 }\n";
    let process = load(text).unwrap();
    assert_eq!(process.file, file);
    assert_eq!(process.user.value, "12345");
    assert_eq!(process.log_format, LogFormat::Json);
    assert_eq!(process.crowdsec.unwrap().interval_secs, 9);
    let process = load("").unwrap();
    assert_eq!((process.crowdsec, process.user), (None, User::default()));
    let error = load("[crowdsec]\nurl = \"x\"\n").unwrap_err().to_string();
    assert!(
        error.contains("crowdsec.url: ") && error.contains("names no key"),
        "{error}"
    );
    std::fs::remove_file(&file).unwrap();
    assert!(CrowdsecProcess::load(Some(&file)).is_err());
}
