//! Host physical memory: regions, words, and the allocator for tables and queues.

use std::sync::Arc;
use viommu::backend::direct::PhysicalMemory;
use viommu::plugin::Unreadable;
use viommu::vm_memory::MmapRegion;

const DMA: u64 = 0x1_0000_0000;

#[test]
fn blocks_are_aligned_zeroed_apart_and_used_again() {
    let memory = PhysicalMemory::new();
    memory.add_dma(DMA, 1 << 20).unwrap();
    let mut blocks = Vec::new();
    for (len, align) in [(16, 32), (4096, 4096), (100, 64), (0x1_0000, 0x1_0000), (8, 1)] {
        let pa = memory.alloc(len, align).unwrap();
        assert_eq!(pa % align, 0);
        assert!(blocks.iter().all(|&(other, size)| pa + len <= other || other + size <= pa), "{pa:#x} overlaps");
        memory.write(pa, &vec![0xa5; len as usize]).unwrap();
        blocks.push((pa, len));
    }
    for &(pa, len) in &blocks {
        memory.free(pa, len).unwrap();
    }
    let whole = memory.alloc(1 << 20, 4096).expect("freed neighbours are joined");
    let mut bytes = vec![0xff; 1 << 20];
    memory.read(whole, &mut bytes).unwrap();
    assert!(bytes.iter().all(|&byte| byte == 0), "what comes back is zeroed");
}

#[test]
fn exhaustion_names_the_pool_and_wrong_frees_do_nothing() {
    let memory = PhysicalMemory::new();
    let error = memory.alloc(64, 64).unwrap_err();
    assert_eq!(error.errno(), 28);
    memory.add_dma(DMA, 4096).unwrap();
    let pa = memory.alloc(4096, 64).unwrap();
    assert_eq!(memory.alloc(1, 1).unwrap_err().to_string(), "bytes of DMA memory exhausted: all 4096 in use");
    for (pa, len) in [(pa, 64), (pa + 64, 4096), (0, 64), (pa, u64::MAX)] {
        assert_eq!(memory.free(pa, len).unwrap_err().errno(), 22, "{pa:#x} {len:#x}");
    }
    memory.free(pa, 4096).unwrap();
    assert_eq!(memory.free(pa, 4096).unwrap_err().errno(), 22, "twice");
    for (len, align) in [(0, 64), (64, 0), (64, 3), (u64::MAX, 1)] {
        assert!(memory.alloc(len, align).is_err(), "{len:#x} {align:#x}");
    }
}

#[test]
fn regions_do_not_overlap_and_come_and_go() {
    let memory = PhysicalMemory::new();
    let ram = || Arc::new(MmapRegion::<()>::new(0x2000).unwrap());
    memory.add_region(0x8000, ram()).unwrap();
    for pa in [0x6001, 0x7000, 0x8000, 0x9fff] {
        assert_eq!(memory.add_region(pa, ram()).unwrap_err().errno(), 17, "{pa:#x}");
    }
    assert_eq!(memory.add_region(u64::MAX - 0x1000, ram()).unwrap_err().errno(), 22);
    memory.add_region(0x6000, ram()).unwrap();
    memory.add_region(0xa000, ram()).unwrap();

    // Across a border between two regions, and not aligned.
    let bytes: Vec<u8> = (0..77).collect();
    memory.write(0x7fe1, &bytes).unwrap();
    let mut back = vec![0; 77];
    memory.read(0x7fe1, &mut back).unwrap();
    assert_eq!(back, bytes);

    memory.remove_region(0x8000).unwrap();
    assert_eq!(memory.read(0x7fe1, &mut back), Err(Unreadable));
    assert_eq!(memory.load(0x8000), Err(Unreadable));
    assert_eq!(memory.store(0x8000, 1), Err(Unreadable));
    assert_eq!(memory.remove_region(0x8000).unwrap_err().errno(), 2);
    memory.add_dma(0x8000, 0x1000).unwrap();
    let pa = memory.alloc(64, 64).unwrap();
    assert_eq!(memory.remove_region(0x8000).unwrap_err().errno(), 16);
    memory.free(pa, 64).unwrap();
    memory.remove_region(0x8000).unwrap();
    assert!(memory.alloc(64, 64).is_err(), "its blocks are gone with it");
}

#[test]
fn words_are_little_endian_and_aligned() {
    let memory = PhysicalMemory::new();
    memory.add_dma(DMA, 4096).unwrap();
    memory.store(DMA + 8, 0x0102_0304_0506_0708).unwrap();
    let mut bytes = [0; 8];
    memory.read(DMA + 8, &mut bytes).unwrap();
    assert_eq!(bytes, [8, 7, 6, 5, 4, 3, 2, 1]);
    assert_eq!(memory.load(DMA + 9), Err(Unreadable));
    assert_eq!(memory.load(DMA + 4096), Err(Unreadable));
    assert_eq!(memory.read(u64::MAX, &mut bytes), Err(Unreadable));
}

#[test]
fn dma_regions_side_by_side_stay_two() {
    let memory = PhysicalMemory::new();
    memory.add_dma(DMA, 4096).unwrap();
    memory.add_dma(DMA + 4096, 4096).unwrap();
    assert!(memory.alloc(8192, 64).is_err());
    let (a, b) = (memory.alloc(4096, 64).unwrap(), memory.alloc(4096, 64).unwrap());
    memory.free(a, 4096).unwrap();
    memory.free(b, 4096).unwrap();
    assert!(memory.alloc(8192, 64).is_err());
    memory.remove_region(DMA).unwrap();
    memory.alloc(4096, 64).unwrap();
}
