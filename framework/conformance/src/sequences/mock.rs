//! The mock driver's commands, but for those that change the whole machine or compare physical pages.

use super::commands::{IOVA, PAGE, PAGES};
use super::draw::Draw;
use super::generate::attachable;
use super::step::{Ioctl, Kind, Value};
use viommu::uapi::Command;
use viommu::uapi::selftest::op;

fn test(op: u32, id: Value) -> Ioctl {
    Ioctl::of(Command::Test).length(4, op).id(8, id)
}

fn device_of(kind: Kind, draw: &mut Draw) -> Value {
    Value::Object(kind, draw.below(3))
}

pub(super) fn anything(draw: &mut Draw) -> Ioctl {
    let idev = device_of(Kind::Idev, draw);
    let stdev = device_of(Kind::Stdev, draw);
    let pasid = draw.one(&[1, 1, 5, 1024, 0, 1 << 20]);
    match draw.below(22) {
        0..2 => {
            let on = if draw.once_in(3) { attachable(draw) } else { Value::Object(Kind::Ioas, draw.below(3)) };
            device(on, draw.one(&[0, 0, 4, 4, 1, 5, 2]))
        }
        2 => test(op::MOCK_DOMAIN, Value::Object(Kind::Ioas, draw.below(3))),
        3..8 => {
            let to = attachable(draw);
            test(op::MOCK_DOMAIN_REPLACE, stdev).id(16, to)
        }
        8..10 => test(op::TRIGGER_VEVENT, Value::Number(0)).id(16, idev),
        10..12 => {
            let ioctl = test(op::TRIGGER_IOPF, Value::Number(0)).id(16, idev).length(20, draw.one(&[0, 0, 1, 5]));
            ioctl.length(24, draw.below(4)).length(28, draw.below(16)).long(32, 0x1000 * u64::from(draw.below(4)))
        }
        12 => test(op::MD_CHECK_IOTLB, Value::Object(Kind::Nested, draw.below(4)))
            .length(16, draw.below(5))
            .length(20, draw.one(&[0, 0xbad_beef])),
        13 => test(op::DEV_CHECK_CACHE, idev).length(16, draw.below(5)).length(20, draw.one(&[0, 0xba_ddad])),
        14..16 => {
            let to = attachable(draw);
            test(op::PASID_ATTACH, stdev).length(16, pasid).id(20, to)
        }
        16 => {
            let to = attachable(draw);
            test(op::PASID_REPLACE, stdev).length(16, pasid).id(20, to)
        }
        17 => test(op::PASID_DETACH, stdev).length(16, pasid.max(1)),
        18 => {
            let to = attachable(draw);
            test(op::PASID_CHECK_HWPT, stdev).length(16, pasid.max(1)).id(20, to)
        }
        19 => {
            let start = IOVA + u64::from(draw.below(PAGES)) * PAGE;
            test(op::ADD_RESERVED, Value::Object(Kind::Ioas, draw.below(3)))
                .long(16, start)
                .long(24, draw.one(&[PAGE, 0, u64::MAX]))
        }
        20 => {
            let first = u64::from(draw.below(PAGES));
            let ioctl = test(op::DIRTY, Value::Object(draw.one(&[Kind::Paging, Kind::Parent]), draw.below(3)));
            let ioctl = ioctl.long(24, IOVA + first * PAGE).long(32, PAGE * 2).long(40, PAGE);
            ioctl.lend(48, vec![draw.one(&[1, 2, 3]), 0, 0, 0, 0, 0, 0, 0])
        }
        _ => access(draw),
    }
}

pub(super) fn device(on: Value, flags: u32) -> Ioctl {
    test(op::MOCK_DOMAIN_FLAGS, on).word(28, flags)
}

pub(super) fn replace(to: Value) -> Ioctl {
    test(op::MOCK_DOMAIN_REPLACE, Value::Object(Kind::Stdev, 0)).id(16, to)
}

fn access(draw: &mut Draw) -> Ioctl {
    let access = Value::Access(draw.below(3));
    // Its number is a file's: nothing else may stand there.
    let of = |op| {
        let mut ioctl = test(op, access);
        ioctl.fields.iter_mut().for_each(|field| field.free = false);
        ioctl
    };
    let first = u64::from(draw.below(PAGES));
    match draw.below(6) {
        0..2 => test(op::CREATE_ACCESS, Value::Object(Kind::Ioas, draw.below(3))).word(20, draw.one(&[0, 1, 2])),
        2 => of(op::ACCESS_REPLACE_IOAS).id(16, Value::Object(Kind::Ioas, draw.below(3))),
        3 => {
            let ioctl = of(op::ACCESS_PAGES).length(16, draw.below(2)).long(24, IOVA + first * PAGE).long(32, PAGE);
            ioctl.memory(40, first * PAGE)
        }
        4 => of(op::DESTROY_ACCESS_PAGES).length(16, draw.below(3)),
        _ => {
            let ioctl = of(op::ACCESS_RW).long(16, IOVA + first * PAGE + 16).long(24, 8);
            ioctl.length(40, draw.one(&[0, 1, 4, 5])).lend(32, vec![draw.one(&[1, 2, 3]); 8])
        }
    }
}
