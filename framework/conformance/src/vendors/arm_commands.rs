//! C10, second part: a guest's commands, and how many of them are said to be handled.

use super::arm::{Arm, IDR, arm, with};
use super::bench::STREAM;
use crate::row::Row;
use crate::session::{Failed, Said, Session};
use std::sync::atomic::Ordering;
use viommu::uapi::flags::VIOMMU_INVALIDATE_DATA_ARM_SMMUV3;

const TLBI: [u64; 2] = [0x10, 0];
const ILLEGAL: [u64; 2] = [0x46, 0];
/// The guest's name for the device.
const VSID: u64 = 3;
/// ID registers of an SMMU with nothing optional.
const PLAIN: [u32; 6] = [0; 6];

/// One command a call, on an SMMU with these ID registers: the errnos.
fn each(s: &mut Session<'_>, idr: [u32; 6], commands: &[[u64; 2]]) -> Said {
    let arm = named(s, idr)?;
    for command in commands {
        let said = arm.invalidate(&[*command]);
        s.note(said.split(',').next().unwrap_or_default());
    }
    Ok(())
}

/// With a vdevice.
fn named<'a>(s: &Session<'a>, idr: [u32; 6]) -> Result<Arm<'a>, Failed> {
    let arm = with(s, idr)?;
    arm.bench.session.vdevice(arm.viommu, arm.bench.device.id, VSID)?;
    Ok(arm)
}

/// So many good ones, a bad one, three more.
fn with_bad(good: usize) -> Vec<[u64; 2]> {
    [vec![TLBI; good], vec![ILLEGAL], vec![TLBI; 3]].concat()
}

/// An array of one entry of this length.
fn array(s: &mut Session<'_>, entry: &[u64], entry_len: u32) -> Said {
    let arm = arm(s)?;
    let mut bytes: Vec<u8> = entry.iter().flat_map(|word| word.to_le_bytes()).collect();
    let asked = viommu::uapi::layout::HwptInvalidate {
        hwpt_id: arm.viommu,
        data_type: VIOMMU_INVALIDATE_DATA_ARM_SMMUV3,
        entry_len,
        entry_num: 1,
        ..Default::default()
    };
    s.see_invalidate(arm.bench.session.invalidate_raw(asked, Some(&mut bytes)));
    Ok(())
}

pub(super) const ROWS: &[Row] = &[
    Row {
        id: "C10.11",
        stimulus: "no command; 200 good ones",
        expected: "EINVAL, num 0, 0 ran; ok, num 200, 200 ran",
        run: |s| {
            let arm = arm(s)?;
            s.note(arm.invalidate(&[]));
            s.note(arm.invalidate(&[TLBI; 200]));
            Ok(())
        },
    },
    Row {
        id: "C10.12",
        stimulus: "every opcode: those that are not EIO",
        expected: "0x05 0x06 0x10 0x11 0x12 0x13 0x30 0x40",
        run: |s| {
            let arm = named(s, IDR)?;
            let taken = (0..256).filter(|opcode| {
                let stream = if [0x05, 0x06, 0x40].contains(opcode) { VSID << 32 } else { 0 };
                arm.invalidate(&[[*opcode | stream, 0]]).starts_with("ok")
            });
            let taken: Vec<_> = taken.map(|opcode| format!("{opcode:#04x}")).collect();
            s.note(taken.join(" "));
            Ok(())
        },
    },
    Row {
        id: "C10.13",
        stimulus: "TLBI_NH_ALL, _NH_VA, _NSNH_ALL of VMID 0xffff; CFGI_CD of the guest's stream: what reaches hardware",
        expected: "0x10 VMID of the parent; 0x12 VMID of the parent; 0x10 VMID of the parent; 0x05 stream of the host",
        run: |s| {
            let arm = named(s, IDR)?;
            let vmid = u64::from(arm.bench.parent);
            for command in [[0xffff << 32 | 0x10, 0], [0xffff << 32 | 0x12, 0x1000], [0x30, 0], [VSID << 32 | 0x05, 0]]
            {
                arm.invalidate(&[command]);
                for [first, _] in arm.hardware.take() {
                    let whose = match first >> 32 {
                        number if number == vmid => "VMID of the parent",
                        number if number == u64::from(STREAM) => "stream of the host",
                        _ => "something else",
                    };
                    s.note(format!("{:#04x} {whose}", first & 0xff));
                }
            }
            Ok(())
        },
    },
    Row {
        id: "C10.14",
        stimulus: "NH_VAA with an ASID; NH_ASID of 16 bits where there are 8; of 8; a reserved bit; one in the second word",
        expected: "EIO; EIO; ok; EIO; EIO",
        run: |s| {
            each(s, IDR, &[[1 << 48 | 0x13, 0x1000]])?;
            each(s, PLAIN, &[[0x100 << 48 | 0x11, 0], [0xff << 48 | 0x11, 0]])?;
            each(s, IDR, &[[0x111, 0], [0x10, 1]])
        },
    },
    Row {
        id: "C10.15",
        stimulus: "ATC_INV Size 52; 53; with SSV; with SSV without substreams; without ATS",
        expected: "ok; EIO; ok; EIO; EIO",
        run: |s| {
            let atc = VSID << 32 | 0x40;
            each(s, IDR, &[[atc, 52], [atc, 53], [atc | 1 << 11, 0]])?;
            each(s, [IDR[0], 0, 0, 0, 0, 0], &[[atc | 1 << 11, 0]])?;
            each(s, PLAIN, &[[atc, 0]])
        },
    },
    Row {
        id: "C10.16",
        stimulus: "CFGI_CD, CFGI_CD_ALL, ATC_INV of a stream that no vdevice has; of the host's number",
        expected: "EIO; EIO; EIO; EIO",
        run: |s| {
            each(s, IDR, &[[4 << 32 | 5, 0], [4 << 32 | 6, 0], [4 << 32 | 0x40, 0], [u64::from(STREAM) << 32 | 5, 0]])
        },
    },
    Row {
        id: "C10.17",
        stimulus: "a range; a range without RIL; NUM without TG; TG with neither NUM, SCALE nor TTL; TTL 1 of 16K without DS",
        expected: "ok; EIO; EIO; EIO; EIO",
        run: |s| {
            each(s, IDR, &[[0x1012, 0x1400]])?;
            each(s, PLAIN, &[[0x1012, 0x1400]])?;
            each(s, IDR, &[[0x1012, 0x1000], [0x12, 0x1400], [0x12, 0x1900]])
        },
    },
    Row {
        id: "C10.18",
        stimulus: "64 good ones, a bad one behind: one block of 63 ran",
        expected: "EIO, num 64, 63 ran",
        run: |s| {
            s.note(arm(s)?.invalidate(&with_bad(64)));
            Ok(())
        },
    },
    Row {
        id: "C10.19",
        stimulus: "63 good ones, a bad one behind",
        expected: "EIO, num 63, 63 ran",
        run: |s| {
            s.note(arm(s)?.invalidate(&with_bad(63)));
            Ok(())
        },
    },
    Row {
        id: "C10.20",
        stimulus: "10 good ones, a bad one behind; a bad one first",
        expected: "EIO, num 10, 0 ran; EIO, num 0, 0 ran",
        run: |s| {
            let arm = arm(s)?;
            s.note(arm.invalidate(&with_bad(10)));
            s.note(arm.invalidate(&with_bad(0)));
            Ok(())
        },
    },
    Row {
        id: "C10.21",
        stimulus: "100 commands, the second SYNC never comes back; the first neither",
        expected: "ETIMEDOUT, num 99, 63 ran; ETIMEDOUT, num 62, 0 ran",
        run: |s| {
            let arm = arm(s)?;
            arm.hardware.syncs.store(1, Ordering::Relaxed);
            s.note(arm.invalidate(&[TLBI; 100]));
            s.note(arm.invalidate(&[TLBI; 100]));
            Ok(())
        },
    },
    Row {
        id: "C10.22",
        stimulus: "entry_len 24 with a zero tail; with another; entry_len 8: what is missing is zero",
        expected: "ok, num 1; E2BIG, num 0; ok, num 1",
        run: |s| {
            array(s, &[TLBI[0], 0, 0], 24)?;
            array(s, &[TLBI[0], 0, 1], 24)?;
            array(s, &[TLBI[0]], 8)
        },
    },
];
