//! C11: NVIDIA's Tegra241 with command queues for guests.

use super::bench::{Bench, named};
use crate::row::Row;
use crate::session::{Failed, Said, Session};
use std::sync::Arc;
use viommu::uapi::dispatcher::driver::DeviceConfig;
use viommu::uapi::dispatcher::drivers::{ArmSmmuv3, GuestQueue, Tegra241, run_tegra_command};
use viommu::uapi::dispatcher::{Limits, Mapping, Options};
use viommu::uapi::flags::{
    HW_INFO_FLAG_INPUT_TYPE, HW_INFO_TYPE_TEGRA241_CMDQV, HW_QUEUE_TYPE_TEGRA241_CMDQV, VEVENTQ_TYPE_TEGRA241_CMDQV,
    VIOMMU_TYPE_ARM_SMMUV3, VIOMMU_TYPE_TEGRA241_CMDQV,
};
use viommu::uapi::layout::{HwInfo, HwQueueAlloc, ViommuAlloc};
use viommu::uapi::payload::ViommuTegra241Cmdqv;
use zerocopy::FromBytes;

const PAGE: u64 = 4096;
const IOVA: u64 = 0x1000;
/// Bytes of page 0, and in it from one queue's registers to the next.
const PAGE0: u64 = 0x1_0000;
const QUEUE: usize = 0x80;
/// IDR1.CMDQS 8: at most 4096 bytes a queue.
const IDR: [u32; 6] = [0, 8 << 21, 0, 0, 0, 0];

/// Four virtual interfaces, memory in physical pieces of so many bytes, two pages of it mapped.
fn machine<'a>(s: &Session<'a>, contiguous_bytes: u64) -> Result<Bench<'a>, Failed> {
    let limits = Limits { contiguous_bytes, ..Limits::default() };
    let driver = Tegra241::new(ArmSmmuv3::new(IDR), 2);
    let bench = Bench::new(driver, Options { limits, ..Options::default() }, s.memory())?;
    bench.session.map(bench.ioas, 0, 2 * PAGE, IOVA)?;
    Ok(bench)
}

/// A vIOMMU with so many bytes of data: its ID, and what came back.
fn interface(bench: &Bench<'_>, data_len: u32) -> Result<(u32, ViommuTegra241Cmdqv), Failed> {
    let mut bytes = [0; 32];
    let (r#type, dev_id, hwpt_id) = (VIOMMU_TYPE_TEGRA241_CMDQV, bench.device.id, bench.parent);
    let asked = ViommuAlloc { r#type, dev_id, hwpt_id, data_len, ..Default::default() };
    let viommu = bench.session.viommu_raw(asked, Some(&mut bytes))?;
    let (data, _) = ViommuTegra241Cmdqv::read_from_prefix(&bytes).unwrap_or_default();
    Ok((viommu, data))
}

fn queue(bench: &Bench<'_>, viommu_id: u32, index: u32, iova: u64, length: u64) -> Result<u32, Failed> {
    let (r#type, nesting_parent_iova) = (HW_QUEUE_TYPE_TEGRA241_CMDQV, iova);
    bench.session.hw_queue_raw(HwQueueAlloc {
        viommu_id,
        r#type,
        index,
        nesting_parent_iova,
        length,
        ..Default::default()
    })
}

/// Queues of these shapes, each the first of a fresh vIOMMU.
fn shapes(s: &mut Session<'_>, shapes: &[(u64, u64)]) -> Said {
    let bench = machine(s, PAGE)?;
    for (iova, length) in shapes {
        let (viommu, _) = interface(&bench, 16)?;
        let made = queue(&bench, viommu, 0, *iova, *length);
        s.see(made);
        if let Ok(made) = made {
            bench.session.destroy(made)?;
        }
        bench.session.destroy(viommu)?;
    }
    Ok(())
}

/// A vIOMMU with two queues, page 0 mapped, and a vEVENTQ's file.
fn driven<'a>(s: &Session<'a>) -> Result<(Bench<'a>, u32, Mapping, u32), Failed> {
    let bench = machine(s, PAGE)?;
    let (viommu, data) = interface(&bench, 16)?;
    for index in 0..2 {
        queue(&bench, viommu, index, IOVA + u64::from(index) * PAGE, PAGE)?;
    }
    let page0 = bench.iommufd.mmap(data.out_vintf_mmap_offset, PAGE0).map_err(named("mmap"))?;
    let (_, file) = bench.session.veventq_of(viommu, VEVENTQ_TYPE_TEGRA241_CMDQV, 8)?;
    Ok((bench, viommu, page0, file))
}

/// What hardware makes of a command in queue 1, in words, with the vEVENTQ's new records.
fn command(s: &mut Session<'_>, bench: &Bench<'_>, viommu: u32, file: u32, first: u64) -> Said {
    let made = run_tegra_command(&bench.iommufd, viommu, 1, [first.to_le(), 0]).map_err(named("queue"))?;
    let mut bytes = [0; 96];
    let read = bench.session.iommufd().read(file, &mut bytes).map_err(named("read"))?;
    let what = match made {
        GuestQueue::Ran => "ran",
        GuestQueue::Stopped => "stopped",
        GuestQueue::Waits => "waits",
    };
    let map = u64::from_le_bytes(bytes[8..16].try_into().unwrap_or_default());
    s.note(if read == 0 { what.into() } else { format!("{what}, {read} bytes, queues {map:#b}") });
    Ok(())
}

pub(super) const ROWS: &[Row] = &[
    Row {
        id: "C11.1",
        stimulus: "VIOMMU_ALLOC with 0 bytes of data; 8; 24; 16",
        expected: "EINVAL; EINVAL; EINVAL; ok",
        run: |s| {
            let bench = machine(s, PAGE)?;
            [0, 8, 24, 16].iter().for_each(|length| s.see(interface(&bench, *length)));
            Ok(())
        },
    },
    Row {
        id: "C11.2",
        stimulus: "four virtual interfaces, one of them the host's: four vIOMMUs; destroy one; another",
        expected: "ok; ok; ok; ENOSPC; ok; ok",
        run: |s| {
            let bench = machine(s, PAGE)?;
            let made: Vec<_> = (0..4).map(|_| interface(&bench, 16).map(|(viommu, _)| viommu)).collect();
            made.iter().for_each(|made| s.see(*made));
            s.see(bench.session.destroy(made[1]?));
            s.see(interface(&bench, 16));
            Ok(())
        },
    },
    Row {
        id: "C11.3",
        stimulus: "VDEVICE_ALLOC of vSID 0x100000; 0xfffff",
        expected: "EINVAL; ok",
        run: |s| {
            let bench = machine(s, PAGE)?;
            let (viommu, _) = interface(&bench, 16)?;
            [0x10_0000, 0xf_ffff].iter().for_each(|vsid| s.see(bench.session.vdevice(viommu, bench.device.id, *vsid)));
            Ok(())
        },
    },
    Row {
        id: "C11.4",
        stimulus: "16 vdevices; one more; destroy one; again",
        expected: "16 ok; ENOSPC; ok; ok",
        run: |s| {
            let bench = machine(s, PAGE)?;
            let (viommu, _) = interface(&bench, 16)?;
            let driver = Arc::new(Tegra241::new(ArmSmmuv3::new(IDR), 2));
            let devices: Result<Vec<_>, _> =
                (0..17).map(|stream| bench.bound(DeviceConfig::new(driver.clone(), stream))).collect();
            let devices = devices?;
            let named: Vec<_> =
                devices.iter().zip(0..).map(|(device, vsid)| bench.session.vdevice(viommu, device.id, vsid)).collect();
            s.note(format!("{} ok", named.iter().filter(|named| named.is_ok()).count()));
            s.see(named[16]);
            s.see(bench.session.destroy(named[0]?));
            s.see(bench.session.vdevice(viommu, devices[16].id, 16));
            Ok(())
        },
    },
    Row {
        id: "C11.5",
        stimulus: "queue 2; 1 before 0; 0; 0 again; 1; destroy 0; another type",
        expected: "EINVAL; EIO; ok; EEXIST; ok; EBUSY; EOPNOTSUPP",
        run: |s| {
            let bench = machine(s, PAGE)?;
            let (viommu_id, _) = interface(&bench, 16)?;
            s.see(queue(&bench, viommu_id, 2, IOVA, PAGE));
            s.see(queue(&bench, viommu_id, 1, IOVA, PAGE));
            let first = queue(&bench, viommu_id, 0, IOVA, PAGE);
            s.see(first);
            s.see(queue(&bench, viommu_id, 0, IOVA, PAGE));
            s.see(queue(&bench, viommu_id, 1, IOVA + PAGE, PAGE));
            s.see(bench.session.destroy(first?));
            let (r#type, nesting_parent_iova) = (7, IOVA);
            let shape = HwQueueAlloc { viommu_id, r#type, nesting_parent_iova, length: PAGE, ..Default::default() };
            s.see(bench.session.hw_queue_raw(shape));
            Ok(())
        },
    },
    Row {
        id: "C11.6",
        stimulus: "length 16; 48; 2049; 32; 4096 with CMDQS 8; 8192, contiguous",
        expected: "EINVAL; EINVAL; EINVAL; ok; ok; EINVAL",
        run: |s| {
            shapes(s, &[(IOVA, 16), (IOVA, 48), (IOVA, 2049), (IOVA, 32), (IOVA, PAGE)])?;
            let bench = machine(s, 1 << 40)?;
            let (viommu, _) = interface(&bench, 16)?;
            s.see(queue(&bench, viommu, 0, IOVA, 2 * PAGE));
            Ok(())
        },
    },
    Row {
        id: "C11.7",
        stimulus: "2048 bytes at 0x20 of a page; at half of it",
        expected: "EINVAL; ok",
        run: |s| shapes(s, &[(IOVA + 0x20, 2048), (IOVA + PAGE / 2, 2048)]),
    },
    Row {
        id: "C11.8",
        stimulus: "two pages that are not together in physical memory",
        expected: "EFAULT",
        run: |s| shapes(s, &[(IOVA, 2 * PAGE)]),
    },
    Row {
        id: "C11.9",
        stimulus: "the offered length; mmap of a page; a page on; all; destroy the vIOMMU; after munmap",
        expected: "65536; ENXIO; ENXIO; ok; EBUSY; ok",
        run: |s| {
            let bench = machine(s, PAGE)?;
            let (viommu, data) = interface(&bench, 16)?;
            s.note(data.out_vintf_mmap_length.to_string());
            let map = |offset, length| bench.iommufd.mmap(offset, length).map_err(named("mmap"));
            s.see(map(data.out_vintf_mmap_offset, PAGE));
            s.see(map(data.out_vintf_mmap_offset + PAGE, PAGE0));
            let page0 = map(data.out_vintf_mmap_offset, PAGE0);
            s.note(crate::session::word(&page0));
            s.see(bench.session.destroy(viommu));
            drop(page0);
            s.see(bench.session.destroy(viommu));
            Ok(())
        },
    },
    Row {
        id: "C11.10",
        stimulus: "a guest's queue: TLBI_NH_VA; SYNC; SYNC with CS 1; CONS.ERR, GERROR; after the guest's acknowledgement TLBI_NH_ALL",
        expected: "ran; ran; stopped, 24 bytes, queues 0b10; 1 1; stopped, 24 bytes, queues 0b10",
        run: |s| {
            let (bench, viommu, page0, file) = driven(s)?;
            for first in [0x12, 0x46, 1 << 12 | 0x46] {
                command(s, &bench, viommu, file, first)?;
            }
            let register = |offset| page0.read(QUEUE + offset).unwrap_or(u32::MAX);
            s.note(format!("{} {}", register(0) >> 24 & 0x7f, register(0x10)));
            page0.write(QUEUE + 0x14, register(0x10));
            command(s, &bench, viommu, file, 0x10)
        },
    },
    Row {
        id: "C11.11",
        stimulus: "a bad command; the guest does not acknowledge: a bad one again; a good one; acknowledged; a good one",
        expected: "stopped, 24 bytes, queues 0b10; waits; waits; ran",
        run: |s| {
            let (bench, viommu, page0, file) = driven(s)?;
            for first in [0x10, 0x10, 0x12] {
                command(s, &bench, viommu, file, first)?;
            }
            page0.write(QUEUE + 0x14, page0.read(QUEUE + 0x10).unwrap_or(0));
            command(s, &bench, viommu, file, 0x12)
        },
    },
    Row {
        id: "C11.12",
        stimulus: "GET_HW_INFO of CMDQV's type; of type 0; Arm's own vIOMMU",
        expected: "type 3, 8 bytes; type 2, 40 bytes; ok",
        run: |s| {
            let bench = machine(s, PAGE)?;
            for data_type in [HW_INFO_TYPE_TEGRA241_CMDQV, 0] {
                let asked =
                    HwInfo { flags: HW_INFO_FLAG_INPUT_TYPE, dev_id: bench.device.id, data_type, ..Default::default() };
                let info = bench.session.hw_info(asked, &mut [])?;
                s.note(format!("type {}, {} bytes", info.data_type, info.data_len));
            }
            s.see(bench.viommu(VIOMMU_TYPE_ARM_SMMUV3));
            Ok(())
        },
    },
];
