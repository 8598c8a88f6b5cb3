//! virtio_net devices that take native XDP and never run it.

use std::{fs, path::Path};

/// Whether native XDP on the interface would see no packet, as far as /sys tells: a virtio_net
/// device without mergeable buffers that may receive packets larger than a frame. Its driver
/// receives them into chains of pages (`receive_big` of drivers/net/virtio_net.c), where no
/// XDP program runs, and attaches one all the same.
///
/// /sys may be another network namespace's: the number of the interface must match.
pub fn native_xdp_is_blind(name: &str, index: u32) -> bool {
    let directory = Path::new("/sys/class/net").join(name);
    let read = |file: &str| fs::read_to_string(directory.join(file)).ok();
    read("ifindex").is_some_and(|number| number.trim().parse() == Ok(index))
        && read("device/modalias").is_some_and(|alias| alias.starts_with("virtio:d00000001"))
        && read("device/features").is_some_and(|features| receives_big(features.trim()))
}

/// Whether the driver uses `receive_big`, from the features that device and driver agreed on: a
/// digit for each bit, the lowest first (`features_show` of drivers/virtio/virtio.c).
fn receives_big(features: &str) -> bool {
    const MERGEABLE_BUFFERS: usize = 15;
    /// VIRTIO_NET_F_GUEST_TSO4, _TSO6, _ECN and _UFO; _USO4 and _USO6.
    const LARGE_PACKETS: [usize; 6] = [7, 8, 9, 10, 54, 55];
    let has = |bit| features.as_bytes().get(bit) == Some(&b'1');
    !has(MERGEABLE_BUFFERS) && LARGE_PACKETS.into_iter().any(has)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features(bits: &[usize]) -> String {
        (0..64)
            .map(|bit| if bits.contains(&bit) { '1' } else { '0' })
            .collect()
    }

    #[test]
    fn large_packets_without_mergeable_buffers_pass_xdp_by() {
        assert!(receives_big(&features(&[0, 1, 5, 7, 8, 32])));
        assert!(receives_big(&features(&[10])));
        assert!(receives_big(&features(&[54])));
        assert!(!receives_big(&features(&[7, 8, 15])), "mergeable");
        assert!(!receives_big(&features(&[0, 1, 5])), "no large packets");
        assert!(!receives_big(""));
    }

    #[test]
    fn other_interfaces_are_not_meant() {
        assert!(!native_xdp_is_blind("lo", 1));
        assert!(!native_xdp_is_blind("no-such-interface", 1));
    }
}
