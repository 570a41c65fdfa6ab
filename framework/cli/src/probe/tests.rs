//! What the report says of hosts whose facts are known, and of a software iommufd.

mod hosts;
mod software;

use super::facts::{Facts, Outcome};
use super::report::device::How;
use super::report::libvirt::{Can, Property};
use super::report::{Report, State, report};
use super::table::table;
use super::{Printed, exit_code};
use viommu::uapi::Errno;

/// The report and its table, whose lines are joined; and that the facts survive being printed.
fn reported(facts: &Facts) -> (Report, String) {
    let printed = serde_json::to_string(&Printed { report: report(facts), facts: facts.clone() }).expect("JSON");
    let again: Printed<serde::de::IgnoredAny> = serde_json::from_str(&printed).expect("its own JSON");
    assert_eq!(&again.facts, facts);
    let report = report(facts);
    let text = table(&report);
    assert!(text.lines().all(|line| line.chars().count() <= 110), "{text}");
    (report, text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Values of libvirt's properties, in the order in which libvirt's documentation has them; "no" where there is none.
fn properties(report: &Report) -> Vec<String> {
    let value = |property: &Property| match property.can {
        Can::Yes => property.value.clone().unwrap_or_default(),
        Can::No => "no".to_owned(),
    };
    report.devices[0].libvirt.iter().map(value).collect()
}

fn nesting(report: &Report) -> (How, &str) {
    let nesting = report.devices[0].nesting.as_ref().expect("it was asked");
    (nesting.how, &nesting.words)
}

#[test]
fn arm_with_canwbs_nests_through_a_viommu() {
    let (report, text) = reported(&hosts::arm(Outcome::OK));
    assert_eq!((report.state, exit_code(&report)), (State::Asked, 0));
    assert_eq!(nesting(&report).0, How::ThroughAViommu);
    assert_eq!(report.devices[0].viommu_types, ["arm_smmuv3"]);
    // QEMU's SMMUv3: no CMDQV, no ATS, RIL, no substreams, 44 bits.
    assert_eq!(properties(&report), ["on", "no", "no", "on", "no", "44"]);
    assert_eq!(report.lacks, Vec::<String>::new());
    for words in ["22 of the 22 commands", "nested on stage 2, on a vIOMMU", "RLIMIT_MODE 0", "IDR1.SSIDSIZE = 0"] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
fn arm_without_canwbs_is_explained() {
    let (report, _) = reported(&hosts::arm(Outcome(Errno::OPNOTSUPP.raw_os_error())));
    let (how, words) = nesting(&report);
    assert_eq!(how, How::No);
    for why in ["EOPNOTSUPP", "S2FWB", "CANWBS", "IORT"] {
        assert!(words.contains(why), "{why}: {words}");
    }
    assert_eq!(properties(&report), ["no"; 6]);
    assert!(report.devices[0].libvirt[0].words.contains("CANWBS"), "accel says why");
    assert!(report.devices[0].libvirt[1..].iter().all(|property| property.words == "it needs accel"));
}

#[test]
fn an_smmu_that_lacks_a_stage_or_has_an_erratum_is_named() {
    let mut facts = hosts::arm(Outcome::OK);
    let refused = Outcome(Errno::OPNOTSUPP.raw_os_error());
    facts.devices[0].hwpt.insert("nest_parent".into(), refused);
    (facts.devices[0].viommu, facts.devices[0].nested) = Default::default();
    let (report, _) = reported(&facts);
    assert!(nesting(&report).1.contains("an erratum of this SMMU"), "{:?}", nesting(&report));
    hosts::set_idr(&mut facts.devices[0], 0, 0x0d44_1019);
    let (report, _) = reported(&facts);
    assert!(nesting(&report).1.contains("IDR0.S1P"), "{:?}", nesting(&report));
}

#[test]
fn tegra_has_queues_and_an_erratum() {
    let (report, text) = reported(&hosts::tegra());
    let device = &report.devices[0];
    assert_eq!(device.iommu, Some("Arm SMMUv3 with Tegra241 CMDQV"));
    assert_eq!(device.viommu_types, ["arm_smmuv3", "tegra241_cmdqv"]);
    assert_eq!(device.hw_queues.as_ref().map(|own| (own.queues, own.streams)), Some((2, 16)));
    assert_eq!(device.errata.iter().map(|erratum| erratum.name).collect::<Vec<_>>(), ["REPEAT_TLBI_CFGI"]);
    // 20 substream bits in the SMMU, 16 in the device.
    assert_eq!(properties(&report), ["on", "on", "on", "on", "16", "48"]);
    assert!(text.contains("issued twice"), "{text}");

    let mut older = hosts::tegra();
    older.commands.insert("HW_QUEUE_ALLOC".into(), Outcome(Errno::NOTTY.raw_os_error()));
    let (report, _) = reported(&older);
    assert_eq!((report.devices[0].hw_queues.as_ref(), &properties(&report)[1][..]), (None, "no"));
    assert!(report.devices[0].libvirt[1].words.contains("HW_QUEUE_ALLOC"));
}

#[test]
fn ats_is_the_devices_and_the_smmus() {
    let mut facts = hosts::tegra();
    facts.devices[0].capabilities |= viommu::uapi::flags::HW_CAP_PCI_ATS_NOT_SUPPORTED;
    let (report, _) = reported(&facts);
    assert_eq!((&properties(&report)[2][..], report.devices[0].libvirt[2].words.contains("device")), ("no", true));
    facts.devices[0].max_pasid_log2 = 0;
    let (report, _) = reported(&facts);
    assert!(report.devices[0].libvirt[4].words.contains("the device has no PASIDs"));
}

#[test]
fn vtd_nests_on_the_parent() {
    let (report, text) = reported(&hosts::vtd());
    assert_eq!(nesting(&report).0, How::OnTheParent);
    let device = &report.devices[0];
    assert_eq!((device.viommu_types.len(), device.libvirt.len(), device.pasid_bits), (0, 0, 20));
    assert_eq!(device.errata.iter().map(|erratum| erratum.name).collect::<Vec<_>>(), ["772415"]);
    assert!(device.dirty_tracking.here && device.dirty_tracking.with_nesting);
    assert!(text.contains("there are no vIOMMUs on VT-d"), "{text}");
}

#[test]
fn vtd_without_nesting_is_named_by_field() {
    let mut facts = hosts::vtd();
    hosts::set_ecap(&mut facts.devices[0], 1 << 1 | 1 << 2 | 1 << 47);
    facts.devices[0].nested.insert("parent, data vtd".into(), Outcome(Errno::OPNOTSUPP.raw_os_error()));
    let (report, _) = reported(&facts);
    let (how, words) = nesting(&report);
    assert_eq!(how, How::ShadowOnly);
    assert!(words.contains("ECAP.NEST, ECAP.SMTS") && !words.contains("FSTS"), "{words}");
}

#[test]
fn amds_viommu_alloc_is_not_believed() {
    let facts = hosts::amd();
    assert!(facts.devices[0].viommu.values().all(|made| made.is_ok()), "the driver takes any type");
    let (report, text) = reported(&facts);
    let (how, words) = nesting(&report);
    assert_eq!((how, report.devices[0].viommu_types.len()), (How::ShadowOnly, 0));
    assert!(words.contains("EOPNOTSUPP") && words.contains("The hardware could (GTSup"), "{words}");
    assert!(text.contains("means nothing"), "{text}");

    // A kernel that allocates nested HWPTs there is noticed.
    let mut newer = hosts::amd();
    newer.devices[0].nested.insert("viommu 0x1, data amd".into(), Outcome::OK);
    assert_eq!(nesting(&reported(&newer).0).0, How::ThroughAViommu);
}

#[test]
fn no_iommufd_and_no_permission_say_what_to_do() {
    for (errno, state, words) in [
        (Errno::NOENT, State::NoIommufd, "CONFIG_IOMMUFD"),
        (Errno::ACCESS, State::NoPermission, "Run as root"),
        (Errno::PERM, State::NoPermission, "Run as root"),
        (Errno::NODEV, State::NoIommufd, "modprobe"),
        (Errno::MFILE, State::Failed, "cannot be opened"),
    ] {
        let (report, text) = reported(&hosts::unopened(errno));
        assert_eq!((report.state, exit_code(&report)), (state, 2), "{errno}");
        assert!(report.sentence.contains(words) && text.contains("Linux 7.3.4"), "{text}");
        assert!(report.commands.is_empty() && report.lacks.is_empty(), "nothing is known, and nothing said");
    }
}

#[test]
fn an_old_kernel_lacks_commands_by_name() {
    let (report, text) = reported(&hosts::old());
    assert_eq!(exit_code(&report), 0);
    for name in ["FAULT_QUEUE_ALLOC", "VIOMMU_ALLOC", "VDEVICE_ALLOC", "VEVENTQ_ALLOC", "HW_QUEUE_ALLOC"] {
        assert!(report.lacks.iter().any(|lacks| lacks.starts_with(&format!("{name}: "))), "{name}: {:?}", report.lacks);
    }
    assert!(!report.lacks.iter().any(|lacks| lacks.starts_with("HWPT_ALLOC")), "that one is there");
    assert!(text.contains("14 of the 22 commands"), "{text}");
    assert!(nesting(&report).1.contains("the running kernel has no VIOMMU_ALLOC"));
}

#[test]
fn an_answer_that_says_neither_is_not_taken_for_one() {
    let mut facts = hosts::arm(Outcome::OK);
    facts.commands.insert("VDEVICE_ALLOC".into(), Outcome(Errno::IO.raw_os_error()));
    facts.commands.remove("OPTION");
    let (report, _) = reported(&facts);
    let there = |name| report.commands.iter().find(|command| command.name == name).and_then(|command| command.there);
    assert_eq!([there("VDEVICE_ALLOC"), there("OPTION"), there("DESTROY")], [None, None, Some(true)]);
    assert!(report.lacks.is_empty());
}

#[test]
fn a_device_that_is_in_use_is_reported_and_nothing_else_said_of_it() {
    for (errno, words) in [
        (Errno::BUSY, "another process uses the device"),
        (Errno::NOENT, "vfio-pci"),
        (Errno::PERM, "not isolated"),
        (Errno::INVAL, "bound already"),
        (Errno::ACCESS, "may not be opened"),
        (Errno::IO, "could not be bound (EIO)"),
    ] {
        let (report, text) = reported(&hosts::unbound(errno));
        assert_eq!(exit_code(&report), 0, "a report was made");
        let device = &report.devices[0];
        assert!(device.problem.as_ref().is_some_and(|problem| problem.contains(words)), "{errno}: {device:?}");
        assert!(device.nesting.is_none() && !text.contains("nesting"), "{text}");
        assert!(report.sentence.contains("0 of 1 devices"), "{}", report.sentence);
    }
}

#[test]
fn without_devices_what_can_be_said_is_said() {
    let mut facts = hosts::arm(Outcome::OK);
    facts.devices.clear();
    let (report, text) = reported(&facts);
    assert!(
        report.sentence.contains("No device was named") && report.sentence.contains("--device /dev/vfio/devices/vfio0")
    );
    assert!(text.contains("22 of the 22 commands") && text.contains("smmu3.0x0000000009050000"));
    facts.candidates.clear();
    assert!(reported(&facts).0.sentence.contains("bind a PCI function to vfio-pci first"));
}

#[test]
fn a_file_that_is_no_iommufd_is_noticed() {
    let mut facts = hosts::arm(Outcome::OK);
    facts.commands.values_mut().for_each(|answer| *answer = Outcome(Errno::NOTTY.raw_os_error()));
    let (report, _) = reported(&facts);
    assert!(report.sentence.contains("is no iommufd"), "{}", report.sentence);
    assert_eq!((report.state, exit_code(&report), report.lacks.len()), (State::NoIommufd, 2, 0));
}

#[test]
fn what_stays_behind_is_said() {
    let mut facts = hosts::arm(Outcome::OK);
    facts.devices[0].left.push("IOAS: DESTROY on object 1: EBUSY".into());
    assert!(reported(&facts).1.contains("could not be destroyed again: IOAS"));
}
