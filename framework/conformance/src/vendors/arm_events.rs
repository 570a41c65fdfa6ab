//! C10, third part: where an SMMUv3's events go.

use super::arm::{Arm, TRANSLATE, arm};
use super::bench::{STREAM, named};
use crate::iommufd::errno_name;
use crate::row::Row;
use crate::session::{Failed, Session};
use viommu::uapi::dispatcher::drivers::report_arm_event;
use viommu::uapi::flags::{HWPT_DATA_ARM_SMMUV3, HWPT_FAULT_ID_VALID, VEVENTQ_TYPE_ARM_SMMUV3};
use viommu::uapi::layout::HwptAlloc;
use zerocopy::IntoBytes;

const VSID: u64 = 3;
/// F_TRANSLATION, and of its second word: stalled, of stage 2.
const F_TRANSLATION: u64 = 0x10;
const STALL: u64 = 1 << 31;
const S2: u64 = 1 << 39;

/// A device, named or not, attached to the guest's tables, and a vEVENTQ's file.
fn attached<'a>(s: &Session<'a>) -> Result<(Arm<'a>, u32), Failed> {
    let arm = arm(s)?;
    let (_, file) = arm.bench.session.veventq_of(arm.viommu, VEVENTQ_TYPE_ARM_SMMUV3, 8)?;
    arm.bench.session.vdevice(arm.viommu, arm.bench.device.id, VSID)?;
    arm.bench.attach(arm.nested(TRANSLATE)?)?;
    Ok((arm, file))
}

/// The hardware has an event; where it went.
fn event(arm: &Arm<'_>, id: u64, second: u64) -> Result<&'static str, Failed> {
    let words = [u64::from(STREAM) << 32 | id, second, 0x1000, 0].map(u64::to_le);
    let went = report_arm_event(&arm.bench.iommufd, arm.bench.device.id, words).map_err(named("event"))?;
    Ok(if went { "reported" } else { "the host's" })
}

/// What a vEVENTQ's file gives: bytes, and the record's stream.
fn record(s: &mut Session<'_>, arm: &Arm<'_>, file: u32) {
    let mut bytes = [0; 80];
    let read = arm.bench.session.iommufd().read(file, &mut bytes);
    s.note(match read {
        Ok(0) => "no record".into(),
        Ok(read) => {
            let first = u64::from_le_bytes(bytes[8..16].try_into().unwrap_or_default());
            format!("{read} bytes, event {:#x} of stream {}", first & 0xff, first >> 32)
        }
        Err(errno) => errno_name(errno),
    });
}

pub(super) const ROWS: &[Row] = &[
    Row {
        id: "C10.23",
        stimulus: "F_TRANSLATION of stage 1 from a nested device: the vEVENTQ",
        expected: "reported; 40 bytes, event 0x10 of stream 3",
        run: |s| {
            let (arm, file) = attached(s)?;
            s.note(event(&arm, F_TRANSLATION, 0)?);
            record(s, &arm, file);
            Ok(())
        },
    },
    Row {
        id: "C10.24",
        stimulus: "of stage 2; an event that the driver does not know; of a device that had no name when it was attached",
        expected: "the host's; the host's; no record; the host's; no record",
        run: |s| {
            let (arm, file) = attached(s)?;
            s.note(event(&arm, F_TRANSLATION, S2)?);
            s.note(event(&arm, 0x7f, 0)?);
            record(s, &arm, file);
            let arm = super::arm::arm(s)?;
            let (_, file) = arm.bench.session.veventq_of(arm.viommu, VEVENTQ_TYPE_ARM_SMMUV3, 8)?;
            arm.bench.attach(arm.nested([9, 0])?)?;
            arm.bench.session.vdevice(arm.viommu, arm.bench.device.id, VSID)?;
            s.note(event(&arm, F_TRANSLATION, 0)?);
            record(s, &arm, file);
            Ok(())
        },
    },
    Row {
        id: "C10.25",
        stimulus: "a stalled one with a fault queue: the vEVENTQ; the fault queue; without a fault queue: what the device is told",
        expected: "reported; no record; 40 bytes; reported; INVALID",
        run: |s| {
            let (arm, file) = attached(s)?;
            let (fault_id, faults) = arm.bench.session.fault_queue()?;
            let asked = HwptAlloc {
                flags: HWPT_FAULT_ID_VALID,
                dev_id: arm.bench.device.id,
                pt_id: arm.viommu,
                data_type: HWPT_DATA_ARM_SMMUV3,
                data_len: 16,
                fault_id,
                ..Default::default()
            };
            let with_faults =
                arm.bench.session.hwpt_raw(asked, Some(&mut TRANSLATE.map(u64::to_le).as_bytes().to_vec()))?;
            arm.bench.attach(with_faults)?;
            s.note(event(&arm, F_TRANSLATION, STALL)?);
            record(s, &arm, file);
            let read = arm.bench.session.iommufd().read(faults, &mut [0; 80]);
            s.note(read.map_or_else(errno_name, |read| format!("{read} bytes")));
            let (arm, _) = attached(s)?;
            s.note(event(&arm, F_TRANSLATION, STALL)?);
            let told: Vec<_> = arm.bench.iommufd.page_answers().iter().map(|answer| answer.code).collect();
            s.note_if(told == [1], "INVALID", "something else");
            Ok(())
        },
    },
];
