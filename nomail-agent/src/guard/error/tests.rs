use super::*;

#[test]
fn knows_an_old_kernel_by_its_name() {
    for release in [
        "5.19.17",
        "5.10.0-28-amd64",
        "4.19",
        "3.10.0-1160.el7.x86_64\n",
    ] {
        assert!(is_old(release), "{release}");
    }
    for release in ["6.0.0", "6.1.0-56-cloud-amd64\n", "10.0", "", "next"] {
        assert!(!is_old(release), "{release}");
    }
    let error = BpfError::OldKernel("5.10.0".to_owned(), io::Error::other("EINVAL"));
    let text = error.to_string();
    assert!(
        text.contains("Linux 5.10.0") && text.contains("6.0 or newer"),
        "{text}"
    );
}

#[test]
fn says_what_a_kernel_lacks_whatever_its_number() {
    let refused = |release: &str, missing: &str| {
        let source = io::Error::other("EINVAL");
        BpfError::refused(release.to_owned(), missing.to_owned(), source).to_string()
    };
    for release in ["5.14.0-503.el9", "6.12.1"] {
        let text = refused(release, "ring buffers (Linux 5.8)");
        for part in [
            release,
            "lacks",
            "ring buffers (Linux 5.8);",
            "--xdp-mode off",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
    assert!(refused("5.10.0", "").contains("needs 6.0 or newer"));
    assert!(refused("6.12.1", "").contains("does not take"));
}
