use super::*;

#[test]
fn not_found_has_many_numbers() {
    for number in [Errno::ENOENT, Errno::ESRCH, Errno::EBADF, Errno::EPERM] {
        assert_eq!(found::<()>(Err(number)), Ok(None), "{number}");
    }
    // These are failures: whether there is such an account is not known.
    for number in [Errno::EIO, Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM] {
        assert_eq!(found::<()>(Err(number)), Err(number));
    }
    assert_eq!(found(Ok(Some(7))), Ok(Some(7)));
    assert_eq!(found::<()>(Ok(None)), Ok(None));
}
