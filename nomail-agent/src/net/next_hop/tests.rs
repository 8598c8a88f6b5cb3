use super::*;

fn answer(kind: u16, attributes: &[(u16, &[u32])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (kind, words) in attributes {
        body.extend((4 + 4 * words.len() as u16).to_ne_bytes());
        body.extend(kind.to_ne_bytes());
        body.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
    }
    let length = (HEADER + NEXT_HOP_HEADER + body.len()) as u32;
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend([0; 10 + NEXT_HOP_HEADER]);
    message.extend(body);
    message
}

#[test]
fn a_next_hop_leads_to_an_interface_or_is_a_group() {
    let single = answer(RTM_NEWNEXTHOP, &[(NHA_ID, &[5]), (NHA_OIF, &[7])]);
    assert_eq!(parse(&single), Some(NextHop::Interface(7)));
    let group = answer(
        RTM_NEWNEXTHOP,
        &[(NHA_ID, &[9]), (NHA_GROUP, &[5, 0, 6, 0])],
    );
    assert_eq!(parse(&group), Some(NextHop::Group(5)));
}

#[test]
fn errors_black_holes_and_scraps_lead_nowhere() {
    assert_eq!(parse(&answer(2, &[(NHA_OIF, &[7])])), None, "an error");
    assert_eq!(parse(&answer(RTM_NEWNEXTHOP, &[(NHA_ID, &[5])])), None);
    let whole = answer(RTM_NEWNEXTHOP, &[(NHA_OIF, &[7])]);
    for length in 0..whole.len() {
        assert_eq!(parse(&whole[..length]), None);
    }
    assert_eq!(request(5).len(), 32);
}

#[test]
fn the_kernel_has_no_such_next_hop() {
    assert_eq!(interface_of(&socket().unwrap(), u32::MAX).unwrap(), None);
}
