use rstest::rstest;

use super::{
    super::{
        device::{XdpProgram, names},
        finding::CheckResult,
    },
    *,
};
use crate::{
    config,
    net::{XDP_BASIC, XDP_SENDS},
    status::InterfaceStatus,
};

fn device_with(change: impl FnOnce(&mut Device)) -> Device {
    let mut device = Device {
        name: "eth0".to_owned(),
        hardware: [2, 0, 0, 0, 0, 2],
        index: 2,
        up: true,
        carrier: true,
        ethernet: true,
        mtu: 1500,
        kind: None,
        driver: Some("ixgbe".to_owned()),
        controller: None,
        vlans: Vec::new(),
        program: None,
        xdp_features: Some(XDP_BASIC | XDP_FRAGS),
        features_on: Some(vec!["rx-gro".to_owned()]),
        native_is_blind: false,
    };
    change(&mut device);
    device
}

fn agent(mode: &str) -> Status {
    Status {
        interfaces: vec![InterfaceStatus {
            name: "eth0".to_owned(),
            xdp_mode: mode.to_owned(),
            program_id: 7,
            pinned: false,
            ..InterfaceStatus::default()
        }],
        ..Status::default()
    }
}

#[test]
fn whose_interfaces() {
    let config = Config::default();
    let eth9 = ["eth9".to_owned()];
    assert_eq!(names(&eth9, &config, Some(&agent("native"))), ["eth9"]);
    assert_eq!(names(&[], &config, Some(&agent("native"))), ["eth0"]);
    assert_eq!(names(&[], &config, None), [config::DEFAULT_ROUTE]);
}

#[rstest]
#[case(XdpMode::Auto, Some(XDP_BASIC), None, DeviceMode::Native)]
#[case(XdpMode::Auto, Some(0), None, DeviceMode::Generic)]
#[case(XdpMode::Auto, None, None, DeviceMode::Unknown)]
#[case(XdpMode::Auto, Some(XDP_BASIC), Some("generic"), DeviceMode::Generic)]
#[case(XdpMode::Off, Some(XDP_BASIC), None, DeviceMode::Off)]
#[case(XdpMode::Native, None, None, DeviceMode::Native)]
fn modes(
    #[case] wanted: XdpMode,
    #[case] features: Option<u64>,
    #[case] mode: Option<&str>,
    #[case] runs: DeviceMode,
) {
    let config = Config {
        xdp_mode: wanted,
        ..Config::default()
    };
    let device = device_with(|device| device.xdp_features = features);
    assert_eq!(device.runs(&config, mode.map(agent).as_ref()), runs);
}

#[test]
fn interfaces() {
    let result = |change: fn(&mut Device), runs| interface(&device_with(change), runs).result;
    assert_eq!(result(|_| (), DeviceMode::Native), CheckResult::Ok);
    assert_eq!(
        result(|device| device.up = false, DeviceMode::Native),
        CheckResult::Warn
    );
    assert_eq!(
        result(|device| device.carrier = false, DeviceMode::Native),
        CheckResult::Warn
    );
    assert_eq!(
        result(|device| device.ethernet = false, DeviceMode::Native),
        CheckResult::Fail
    );
    assert_eq!(
        result(|device| device.ethernet = false, DeviceMode::Off),
        CheckResult::Ok
    );
}

#[test]
fn topologies() {
    assert_eq!(topology(&device_with(|_| ())).result, CheckResult::Ok);
    for (controller, kind) in [("bond0", "bond"), ("br0", "bridge")] {
        let found = topology(&device_with(|device| {
            device.controller = Some((controller.to_owned(), kind.to_owned()));
        }));
        assert_eq!(found.result, CheckResult::Warn);
        assert!(found.found.contains(controller) && found.found.contains(kind));
    }
    let found = topology(&device_with(|device| {
        device.vlans = vec!["eth0.5".to_owned()];
    }));
    assert!(found.found.contains("eth0.5"), "{found:?}");
}

#[test]
fn programs() {
    let result = |id, name: Option<&str>, runs, status: Option<&Status>, root| {
        let program = XdpProgram {
            id,
            name: name.map(str::to_owned),
        };
        xdp_program(
            &device_with(|device| device.program = Some(program)),
            runs,
            status,
            root,
        )
        .result
    };
    let agent = agent("native");
    assert_eq!(
        xdp_program(&device_with(|_| ()), DeviceMode::Native, None, true).result,
        CheckResult::Ok
    );
    assert_eq!(
        result(7, Some("nomail"), DeviceMode::Native, Some(&agent), true),
        CheckResult::Ok
    );
    assert_eq!(
        result(7, None, DeviceMode::Native, Some(&agent), false),
        CheckResult::Ok
    );
    assert_eq!(
        result(8, Some("nomail"), DeviceMode::Native, Some(&agent), true),
        CheckResult::Warn
    );
    assert_eq!(
        result(8, Some("other"), DeviceMode::Native, Some(&agent), true),
        CheckResult::Fail
    );
    assert_eq!(
        result(8, None, DeviceMode::Native, None, false),
        CheckResult::Skip
    );
    assert_eq!(
        result(8, Some("other"), DeviceMode::Off, None, true),
        CheckResult::Ok
    );
}

#[rstest]
#[case(Some(XDP_BASIC), DeviceMode::Native, XdpMode::Auto, CheckResult::Ok)]
#[case(
    Some(XDP_BASIC),
    DeviceMode::Generic,
    XdpMode::Generic,
    CheckResult::Warn
)]
#[case(Some(0), DeviceMode::Generic, XdpMode::Auto, CheckResult::Warn)]
#[case(Some(0), DeviceMode::Native, XdpMode::Native, CheckResult::Fail)]
#[case(None, DeviceMode::Native, XdpMode::Auto, CheckResult::Ok)]
#[case(None, DeviceMode::Unknown, XdpMode::Auto, CheckResult::Skip)]
#[case(None, DeviceMode::Native, XdpMode::Native, CheckResult::Skip)]
fn native(
    #[case] features: Option<u64>,
    #[case] runs: DeviceMode,
    #[case] wanted: XdpMode,
    #[case] result: CheckResult,
) {
    let device = device_with(|device| device.xdp_features = features);
    assert_eq!(xdp_native(&device, runs, wanted).result, result);
}

#[rstest]
#[case(Some(XDP_BASIC), DeviceMode::Native, CheckResult::Fail)]
#[case(Some(XDP_BASIC), DeviceMode::Generic, CheckResult::Ok)]
#[case(Some(XDP_BASIC | XDP_SENDS), DeviceMode::Native, CheckResult::Ok)]
#[case(None, DeviceMode::Native, CheckResult::Skip)]
#[case(None, DeviceMode::Generic, CheckResult::Ok)]
#[case(Some(0), DeviceMode::Generic, CheckResult::Ok)]
fn answers_of_veth(
    #[case] features: Option<u64>,
    #[case] runs: DeviceMode,
    #[case] result: CheckResult,
) {
    let veth = |device: &mut Device| {
        (device.kind, device.xdp_features) = (Some(VETH.to_owned()), features);
    };
    assert_eq!(answers(&device_with(veth), runs, None).result, result);
    let hardware = device_with(|device| device.xdp_features = features);
    assert_eq!(answers(&hardware, runs, None).result, CheckResult::Ok);
}

#[test]
fn where_auto_leads_on_veth() {
    let one_sided = device_with(|device| device.kind = Some(VETH.to_owned()));
    let config = Config::default();
    assert_eq!(one_sided.runs(&config, None), DeviceMode::Generic);
    let untold = device_with(|device| {
        (device.kind, device.xdp_features) = (Some(VETH.to_owned()), None);
    });
    assert_eq!(untold.runs(&config, None), DeviceMode::Generic);
    let hardware = device_with(|device| device.xdp_features = None);
    assert_eq!(hardware.runs(&config, None), DeviceMode::Unknown);
    let found = xdp_native(&one_sided, DeviceMode::Generic, XdpMode::Auto);
    assert_eq!(
        found.result,
        CheckResult::Ok,
        "native mode is no better here"
    );
}

#[test]
fn what_the_agent_told_of_its_guard() {
    let plain = device_with(|_| ());
    let mut agent = agent("native");
    let result = |agent: &Status| {
        [
            xdp_program(&plain, DeviceMode::Native, Some(agent), true).result,
            answers(&plain, DeviceMode::Native, Some(agent)).result,
            sight(&plain, DeviceMode::Native, Some(agent)).result,
        ]
    };
    assert_eq!(
        result(&agent),
        [CheckResult::Fail, CheckResult::Ok, CheckResult::Ok],
        "no program"
    );
    agent.interfaces[0].trouble = Some(Trouble::Blind);
    assert_eq!(result(&agent)[2], CheckResult::Fail);
    agent.interfaces[0].trouble = Some(Trouble::AnswersLost);
    assert_eq!(result(&agent)[1..], [CheckResult::Fail, CheckResult::Ok]);
    agent.interfaces[0].trouble = None;
    agent.interfaces[0].counts.answers[Answer::Challenge] = UNANSWERED;
    assert_eq!(result(&agent)[1], CheckResult::Warn);
    agent.interfaces[0].counts.answers[Answer::Proven] = 1;
    assert_eq!(result(&agent)[1], CheckResult::Ok);
    agent.interfaces[0].xdp_mode = "off".to_owned();
    assert_eq!(result(&agent)[0], CheckResult::Ok);
    agent.interfaces[0].trouble = Some(Trouble::Detached);
    assert_eq!(result(&agent)[0], CheckResult::Fail);
}

#[rstest]
#[case(1500, Some(XDP_BASIC), DeviceMode::Native, CheckResult::Ok)]
#[case(3506, Some(XDP_BASIC), DeviceMode::Native, CheckResult::Ok)]
#[case(3507, Some(XDP_BASIC), DeviceMode::Native, CheckResult::Warn)]
#[case(9000, Some(XDP_BASIC), DeviceMode::Generic, CheckResult::Ok)]
#[case(9000, Some(XDP_BASIC | XDP_FRAGS), DeviceMode::Native, CheckResult::Ok)]
#[case(9000, None, DeviceMode::Unknown, CheckResult::Skip)]
fn mtus(
    #[case] size: u32,
    #[case] features: Option<u64>,
    #[case] runs: DeviceMode,
    #[case] result: CheckResult,
) {
    let device = device_with(|device| (device.mtu, device.xdp_features) = (size, features));
    assert_eq!(mtu(&device, runs).result, result);
}

#[test]
fn offloads_that_are_lost() {
    assert_eq!(
        offloads(&device_with(|_| ()), DeviceMode::Native).result,
        CheckResult::Ok
    );
    let untold = device_with(|device| device.features_on = None);
    assert_eq!(
        offloads(&untold, DeviceMode::Native).result,
        CheckResult::Skip
    );
    let veth = device_with(|device| device.kind = Some("veth".to_owned()));
    assert_eq!(
        offloads(&veth, DeviceMode::Native).result,
        CheckResult::Warn
    );
    assert_eq!(offloads(&veth, DeviceMode::Generic).result, CheckResult::Ok);
    let on = ["rx-lro".to_owned(), "rx-gro-hw".to_owned()];
    let lost = device_with(|device| device.features_on = Some(on.to_vec()));
    let lost = offloads(&lost, DeviceMode::Generic);
    assert_eq!(lost.result, CheckResult::Warn);
    let remedy = lost.remedy.unwrap();
    assert!(
        remedy.ends_with("ethtool -K eth0 lro off rx-gro-hw off"),
        "{remedy}"
    );
}

#[test]
fn checksums_of_local_neighbours() {
    let veth = device_with(|device| device.kind = Some("veth".to_owned()));
    let virtio = device_with(|device| device.driver = Some("virtio_net".to_owned()));
    assert_eq!(
        checksums(&device_with(|_| ()), DeviceMode::Generic).result,
        CheckResult::Ok
    );
    assert_eq!(
        checksums(&veth, DeviceMode::Generic).result,
        CheckResult::Ok
    );
    assert_eq!(
        checksums(&virtio, DeviceMode::Generic).result,
        CheckResult::Warn
    );
    for local in [veth, virtio] {
        assert_eq!(
            checksums(&local, DeviceMode::Native).result,
            CheckResult::Ok
        );
        assert_eq!(
            checksums(&local, DeviceMode::Unknown).result,
            CheckResult::Skip
        );
    }
}

#[test]
fn a_device_on_which_native_mode_sees_nothing() {
    let blind = device_with(|device| device.native_is_blind = true);
    assert_eq!(blind.runs(&Config::default(), None), DeviceMode::Generic);
    assert_eq!(
        sight(&blind, DeviceMode::Native, None).result,
        CheckResult::Fail
    );
    assert_eq!(
        sight(&blind, DeviceMode::Generic, None).result,
        CheckResult::Ok
    );
}
