//! The founding proposal's words do what today's do.

use crate::{guest, host};
use viommu::plugin::GuestFault;
use viommu::proposal::{
    DevAssignVirtualId, DevInvalidate, DevResignVirtualId, HwptCacheConfigTegra241Vcmdq, HwptInvalidate, IdType,
    IdevData, SetIdevData, UnsetIdevData, VirtualFunction,
};

/// TLBI_NH_ASID of ASID 1.
const TLBI: [u64; 2] = [0x11 | 1 << 48, 0];
/// ATC_INV that names stream 0x1234, everything; CFGI_CD that names stream 0x77.
const ATC_INV: [u64; 2] = [0x40 | 0x1234 << 32, 52];
const CFGI_CD: [u64; 2] = [5 | 0x77 << 32, 1];

#[test]
fn every_word_of_the_proposal_has_its_meaning() {
    let (backend, host) = host();
    let host = host.host();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let memory = guest::memory();
        // IDR0 with ATS, so that the guest may send ATC invalidations.
        let mut config = guest::config(&memory);
        let idr0 = arm_smmuv3::features::Features::default().idr0.with_ats(true).into_bits();
        config.registers = vec![viommu::plugin::Register { offset: 0, value: idr0.into() }];
        let parent = host.ioas().await.unwrap().nest_parent().await.unwrap();
        let device = host.device(0x40).await.unwrap();

        // 1. Without a virtual function there is nobody to assign to.
        let assign = DevAssignVirtualId::new(device.id(), IdType::StreamId, 5);
        assert_eq!(assign.size, 16);
        assert_eq!(assign.assign(host, &parent).await.unwrap_err().errno(), 2);
        let function: VirtualFunction = parent.viommu(config).await.unwrap();

        // 2. Wrong size, wrong kind of ID, no such device.
        let short = DevAssignVirtualId { size: 12, ..assign };
        assert_eq!(short.assign(host, &function).await.unwrap_err().errno(), 22);
        let rid = DevAssignVirtualId { id_type: IdType::Rid, ..assign };
        assert_eq!(rid.assign(host, &function).await.unwrap_err().errno(), 22);
        let nobody = DevAssignVirtualId { dev_id: 9999, ..assign };
        assert_eq!(nobody.assign(host, &function).await.unwrap_err().errno(), 2);

        // 3. Assign to the nesting parent: the function welded to it.
        let vdevice = assign.assign(host, &parent).await.unwrap();
        assert_eq!((vdevice.virt_id(), vdevice.viommu().id()), (5, function.id()));

        // 4. IOTLB invalidation on any HWPT; device invalidation with the stream forced.
        let tag = u64::from(function.info().tag);
        for hwpt_id in [parent.id(), function.id()] {
            let done = HwptInvalidate { hwpt_id, commands: &TLBI }.invalidate(host).await.unwrap();
            assert_eq!((done.handled, done.fault), (1, GuestFault::NONE));
            assert_eq!(backend.words(), [TLBI[0] | tag << 32, 0]);
        }
        assert_eq!(HwptInvalidate { hwpt_id: 9999, commands: &TLBI }.invalidate(host).await.unwrap_err().errno(), 2);
        let commands = [CFGI_CD, ATC_INV].concat();
        let done = DevInvalidate { dev_id: device.id(), commands: &commands }.invalidate(host).await.unwrap();
        assert_eq!((done.handled, done.fault), (2, GuestFault::NONE));
        assert_eq!(backend.words(), [5 | 0x40 << 32, 1, 0x40 | 0x40 << 32, 52]);

        // 5. Resign; set and unset.
        DevResignVirtualId { vdevice }.resign().await.unwrap();
        let refused = DevInvalidate { dev_id: device.id(), commands: &commands }.invalidate(host).await;
        assert_eq!(refused.unwrap_err().errno(), 2);
        let data = IdevData { id_type: IdType::StreamId, id: 6 };
        let vdevice = SetIdevData { dev_id: device.id(), data }.set(host, &function).await.unwrap();
        assert_eq!(device.virt_id(), Some(6));
        UnsetIdevData { vdevice }.unset().await.unwrap();
        assert_eq!(device.virt_id(), None);

        // 6. The mmapable queue.
        let queue = HwptCacheConfigTegra241Vcmdq { vcmdq_id: 0, vcmdq_log2size: 19, vcmdq_base: 0x4000_0000 };
        assert_eq!(queue.configure(&function).await.unwrap().index(), 0);
        let large = HwptCacheConfigTegra241Vcmdq { vcmdq_log2size: 20, ..queue };
        assert_eq!(large.configure(&function).await.unwrap_err().errno(), 22);
    });
}
