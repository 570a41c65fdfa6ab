//! Event records.

use crate::{untouched, words};
use arm_smmuv3::frontend::ArmFrontend;
use arm_smmuv3::spec::events::{EventId, EventWord0, EventWord1, FaultClass};
use arm_smmuv3::spec::registers::offset;
use viommu_plugin::Frontend;

struct Golden {
    section: &'static str,
    bytes: [u8; 32],
    id: EventId,
    apart: fn(EventWord0, EventWord1) -> bool,
    build: fn() -> [u64; 4],
}

const GOLDEN: &[Golden] = &[
    Golden {
        section: "7.3 C_BAD_STE",
        bytes: {
            let mut bytes = [0; 32];
            bytes[0] = 0x04;
            bytes[4] = 0x10;
            bytes
        },
        id: EventId::C_BAD_STE,
        apart: |w0, w1| (w0.stream_id(), w0.ssv(), w1.into_bits()) == (0x10, false, 0),
        build: || [EventWord0::new().with_id(0x04).with_stream_id(0x10).into_bits(), 0, 0, 0],
    },
    Golden {
        section: "7.3 F_TRANSLATION of a write, stage 1",
        bytes: [
            0x10, 0, 0, 0, 0x08, 0, 0, 0, 0, 0, 0, 0, 0x02, 0x02, 0, 0, 0x00, 0x10, 0xad, 0xde, 0, 0, 0, 0, 0, 0, 0, 0,
            0, 0, 0, 0,
        ],
        id: EventId::F_TRANSLATION,
        apart: |w0, w1| {
            (w0.stream_id(), w1.pnu(), w1.ind(), w1.rnw(), w1.s2()) == (8, true, false, false, false)
                && FaultClass(w1.class()) == FaultClass::IN
        },
        build: || {
            let word1 = EventWord1::new().with_pnu(true).with_class(FaultClass::IN.0);
            [EventWord0::new().with_id(0x10).with_stream_id(8).into_bits(), word1.into_bits(), 0xdead_1000, 0]
        },
    },
    Golden {
        section: "7.3 F_PERMISSION of a read with a SubstreamID, stage 2, stalled",
        bytes: [
            0x13, 0x58, 0x34, 0x12, 0x00, 0x03, 0, 0, 0x34, 0x12, 0, 0x80, 0x88, 0x01, 0, 0, 0x00, 0x10, 0, 0, 0, 0, 0,
            0, 0x00, 0x20, 0, 0, 0, 0, 0, 0,
        ],
        id: EventId::F_PERMISSION,
        apart: |w0, w1| {
            (w0.ssv(), w0.substream_id(), w0.stream_id()) == (true, 0x12345, 0x300)
                && (w1.stag(), w1.stall(), w1.rnw(), w1.s2(), FaultClass(w1.class()))
                    == (0x1234, true, true, true, FaultClass::TTD)
        },
        build: || {
            let word0 = EventWord0::new().with_id(0x13).with_ssv(true).with_substream_id(0x12345).with_stream_id(0x300);
            let word1 = EventWord1::new().with_stag(0x1234).with_stall(true).with_rnw(true).with_s2(true);
            [word0.into_bits(), word1.with_class(FaultClass::TTD.0).into_bits(), 0x1000, 0x2000]
        },
    },
];

#[test]
fn take_apart() {
    for golden in GOLDEN {
        let [w0, w1, ..]: [u64; 4] = words(&golden.bytes);
        assert!((golden.apart)(w0.into(), w1.into()), "{}", golden.section);
    }
}

#[test]
fn build() {
    for golden in GOLDEN {
        assert_eq!((golden.build)(), words::<32, 4>(&golden.bytes), "{}", golden.section);
    }
}

#[test]
fn parse() {
    for golden in GOLDEN {
        let [w0, ..]: [u64; 4] = words(&golden.bytes);
        let id = EventId(EventWord0::from_bits(w0).id());
        assert_eq!(id, golden.id, "{}", golden.section);
        assert!(golden.section.contains(id.name().unwrap()));
    }
}

#[test]
fn emit() {
    for golden in GOLDEN {
        let mut frontend = ArmFrontend::new(&[]).unwrap();
        frontend.write(offset::EVENTQ_BASE, 8, 0x4000_0000 | 4);
        frontend.write(offset::CR0, 4, 1 << 2);
        let record: [u64; 4] = words(&golden.bytes);
        let effects = frontend.event(0x0102_0304, &record);
        assert_eq!((effects.store_count, effects.stores[0].gpa, effects.stores[0].len), (1, 0x4000_0000, 32));
        let mut image: [u64; 5] = untouched();
        image[..4].copy_from_slice(&words::<32, 4>(effects.stores[0].bytes[..32].try_into().unwrap()));
        let mut expected: [u64; 5] = untouched();
        expected[..4].copy_from_slice(&record);
        expected[0] = record[0] & 0xffff_ffff | 0x0102_0304 << 32;
        assert_eq!(image, expected, "{}", golden.section);
    }
}
